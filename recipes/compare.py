"""Train variants of a network under equal budget: ``python recipes/compare.py STUDY``.

A study is a YAML file (:class:`Study`): a recipe, variants of it, and seeds. Every variant is
trained with every seed, in folders of their own. Runs that are finished are not trained again, and
one that was stopped goes on where it stopped, so the same command resumes the study.
"""

from __future__ import annotations

import zoo.startup  # noqa: F401 - before all others, as in "python -m recipes.compare"

# isort: split
import argparse
import hashlib
import json
import logging
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from recipes.train import train
from zoo.command import run_command, whole
from zoo.description import Measured, measured
from zoo.distributed import ProcessGroup, process_group
from zoo.errors import RecipeError, ZooError, nearest, shown
from zoo.evaluation.comparison import Trained, rows, table
from zoo.files import write_text
from zoo.plots.comparison import plot_comparison
from zoo.recipe import Recipe, load_recipe
from zoo.recipe_files import read_recipe
from zoo.schema import at_least, resolve
from zoo.shipped import RECIPES
from zoo.training.metrics_log import read_metrics
from zoo.training.options import add_machine_options, machine_options, overrides_of
from zoo.training.settings import BurstTrainSettings, TrainSettings, train_settings

logger = logging.getLogger("zoo.compare")

STUDIES = RECIPES / "studies"
"""Folder of the studies that ship."""

SCORE, MOST_SEED = "score.json", 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far a variant may be from the reference.

    Attributes:
        parameters: largest difference in the number of parameters, relative to the reference.
        operations: largest difference in the operations of one input, relative to the reference.
    """

    parameters: float = 0.02
    operations: float = 0.02

    def __post_init__(self) -> None:
        at_least(self, 0, "parameters", "operations")


@dataclass(frozen=True, kw_only=True)
class Study:
    """A comparison of variants.

    Attributes:
        name: name of the study.
        summary: one line on what is compared.
        base: the recipe that all variants share; it usually ``extends`` another.
        variants: for each variant, by name, what it changes in ``base``.
        reference: name of the variant that the others are compared with.
        seeds: seeds of the trainings; each variant is trained with each.
        tolerance: how equal the budgets must be.
    """

    name: str
    summary: str = ""
    base: dict[str, Any] = field(default_factory=dict)
    variants: dict[str, dict[str, Any]]
    reference: str
    seeds: tuple[int, ...] = (0, 1, 2)
    tolerance: Tolerance = Tolerance()

    def __post_init__(self) -> None:
        for name in self.variants:
            if not re.fullmatch(r"[\w.-]{1,100}", name) or not name.strip("."):
                raise RecipeError(
                    f"variants: {shown(name)} names a folder; use letters, digits, '-' and '_'"
                )
        if self.reference not in self.variants:
            raise RecipeError(
                f"reference: {shown(self.reference)} is no variant"
                f"{nearest(self.reference, self.variants)}"
            )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise RecipeError("seeds must name at least one seed, and none twice")
        if not all(0 <= seed <= MOST_SEED for seed in self.seeds):
            raise RecipeError(f"seeds are {shown(self.seeds)}; use numbers from 0 to {MOST_SEED}")

    def recipe(self, variant: str, settings: Mapping[str, Any]) -> Recipe:
        """Return the recipe of a variant.

        Args:
            variant: its name.
            settings: values by dotted path that replace those of all variants.
        """
        try:
            named = {**self.base, "name": f"{self.name}_{variant}"[:200]}
            return load_recipe(named, {**self.variants[variant], **settings})
        except RecipeError as error:
            raise RecipeError(f"variant {variant!r}: {error}") from error


def list_studies() -> list[str]:
    """Return the sorted names of the studies that ship."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def load_study(source: str | Path) -> Study:
    """Read a study.

    Args:
        source: name of a study that ships, or a path that ends in ``.yaml``.

    Raises:
        RecipeError: if there is none, or it is wrong; the message gives the place.
    """
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        if str(source) not in list_studies():
            raise RecipeError(
                f"unknown study {shown(str(source))}{nearest(str(source), list_studies())}"
            )
        path = STUDIES / f"{source}.yaml"
    data, _ = read_recipe(path)
    try:
        study: Study = resolve(Study, data, "")
    except RecipeError as error:
        raise RecipeError(f"{path.name}: {error}") from error
    return study


def check_budget(sizes: Mapping[str, Measured], study: Study) -> None:
    """Check that all variants have about the size of the reference.

    Raises:
        RecipeError: for the first that has not; the message says how large it is.
    """
    base = sizes[study.reference]
    for name, size in sizes.items():
        for what, mine, theirs, most in (
            ("parameters", size.parameters, base.parameters, study.tolerance.parameters),
            ("operations", size.gigaflops, base.gigaflops, study.tolerance.operations),
        ):
            apart = mine / theirs - 1
            if abs(apart) > most:
                raise RecipeError(
                    f"variant {name!r} has {apart:+.1%} {what} against {study.reference!r}, so the "
                    f"budget is not equal; change its sizes, or raise tolerance.{what} ({most:g})"
                )


def finished(folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    """Return the score of a run that is finished; None if it is not, or had other settings."""
    try:
        found = json.loads((folder / SCORE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("of") == _print_of(recipe) else None


def _print_of(recipe: Recipe) -> str:
    """Return what tells the settings of a run from others."""
    return hashlib.sha256(json.dumps(recipe.data(), sort_keys=True).encode()).hexdigest()


def run_study(
    study: Study,
    folder: Path,
    *,
    names: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    device: str = "cpu",
    num_workers: int | None = None,
    tf32: bool = False,
    group: ProcessGroup | None = None,
) -> list[Trained]:
    """Train all variants with all seeds, or go on with it, and write the report after each run.

    Seeds are the outer loop: whenever it is stopped, the variants have been trained equally often.

    Args:
        study: the study.
        folder: folder of the study.
        names: the variants to train; all if empty. Finished runs of other variants and seeds are
            in the report too.
        settings: values by dotted path that replace those of all variants.
        device: device to train on, "cpu" or "cuda".
        num_workers: number of processes that load data; None for what suits the device.
        tf32: whether a GPU may compute float32 products and convolutions in TF32.
        group: processes that train together; None for this process alone.

    Returns:
        The variants with their scores, in the sequence of the study.

    Raises:
        ZooError: if the study is wrong, a name is unknown, or a training fails.
    """
    group = group or ProcessGroup()
    plan = group.from_first(lambda: _plan(study, folder, names, settings or {}))
    sizes = {name: measured(recipes[study.seeds[0]]) for name, recipes in plan.items()}
    group.together(lambda: check_budget(sizes, study))
    chosen = [name for name in study.variants if not names or name in names]
    everything = [(seed, name) for seed in study.seeds for name in chosen]
    trained: list[Trained] = []
    for number, (seed, name) in enumerate(everything, 1):
        run, recipe = folder / name / f"seed-{seed}", plan[name][seed]
        if group.broadcast(finished(run, recipe)) is None:
            logger.info("%d of %d: %s, seed %d", number, len(everything), name, seed)
            train(recipe, run, device=device, num_workers=num_workers, group=group, tf32=tf32)
            if group.is_first:
                write_text(run / SCORE, json.dumps(_score(run, recipe), indent=1) + "\n")
        if group.is_first:
            trained = _collected(folder, plan, sizes)
            _report(folder, study, trained, plan[study.reference][study.seeds[0]])
    return trained


def _plan(
    study: Study, folder: Path, names: Sequence[str], settings: Mapping[str, Any]
) -> dict[str, dict[int, Recipe]]:
    """Return the recipes of a study by variant and seed; mistakes in them are told now."""
    if "train.seed" in settings:
        raise ZooError(
            "train.seed: the study sets the seeds; give --seeds N, or 'seeds' in its file"
        )
    for name in names:
        if name not in study.variants:
            raise ZooError(f"--only {name}: no such variant{nearest(name, study.variants)}")
    plan = {
        name: {
            seed: study.recipe(name, {**settings, "train.seed": seed})
            for seed in sorted({*study.seeds, *_seeds_in(folder / name)})
        }
        for name in study.variants
    }
    for recipes in plan.values():
        for recipe in recipes.values():
            train_settings(recipe)
    return plan


def _score(run: Path, recipe: Recipe) -> dict[str, Any]:
    steps = train_settings(recipe).iterations
    lines = [line for line in read_metrics(run) if line["step"] == steps and "psnr" in line]
    if not lines or not isinstance(lines[-1]["psnr"], (int, float)):
        raise ZooError(f"{run}: the log has no PSNR of the last step; delete the folder")
    return {"of": _print_of(recipe), **lines[-1]}


def _collected(
    folder: Path, plan: Mapping[str, Mapping[int, Recipe]], sizes: Mapping[str, Measured]
) -> list[Trained]:
    """Return all variants with at least one finished run."""
    found = []
    for name, recipes in plan.items():
        scores = {
            seed: score
            for seed, recipe in recipes.items()
            if (score := finished(folder / name / f"seed-{seed}", recipe)) is not None
        }
        if scores:
            found.append(
                Trained(
                    name=name,
                    parameters=sizes[name].parameters,
                    gigaflops=sizes[name].gigaflops,
                    psnr={seed: float(score["psnr"]) for seed, score in scores.items()},
                    ssim={seed: _number(score.get("ssim")) for seed, score in scores.items()},
                )
            )
    return found


def _seeds_in(folder: Path) -> list[int]:
    """Return the seeds of a variant's runs in its folder."""
    names = (re.fullmatch(r"seed-([0-9]{1,10})", path.name) for path in folder.glob("seed-*"))
    seeds = (int(name[1]) for name in names if name)
    return [seed for seed in seeds if seed <= MOST_SEED]


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def _report(folder: Path, study: Study, trained: Sequence[Trained], recipe: Recipe) -> None:
    """Write the table, the picture and the numbers of what has been trained so far."""
    write_text(folder / "results.csv", rows(trained))
    if not any(variant.name == study.reference for variant in trained):
        return  # nothing to compare with yet
    title = f"{study.name}: {study.summary}" if study.summary else study.name
    heading = f"# {title}\n\n{_budget(train_settings(recipe))}\n\n"
    write_text(folder / "summary.md", heading + table(trained, study.reference) + NOTES)
    facts = {"reference": study.reference, "variants": [asdict(variant) for variant in trained]}
    write_text(folder / "results.json", json.dumps(facts, indent=1) + "\n")
    plot_comparison(trained, study.reference, folder / "comparison.png")


NOTES = """
± is the 95 % confidence interval of the mean over seeds (Student's distribution). The last column
compares seed by seed; * marks intervals without zero. With many variants, some have a * by chance.
"""


def _budget(settings: TrainSettings) -> str:
    if isinstance(settings, BurstTrainSettings):
        what, batch, patch = "bursts with frames", settings.data.batch, settings.data.patch
    else:
        [*_, stage] = settings.data.plan(settings.iterations)
        what, batch, patch = "patches", stage.batch, stage.patch
    return f"Each run: {settings.iterations:,} steps of {batch} {what} of {patch} x {patch}."


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run the command under the name ``prog`` and return its exit code; 2 means bad input."""
    parser = argparse.ArgumentParser(
        prog="python recipes/compare.py",
        description="Train variants of a network under equal budget, such as scan orders, and "
        "compare them. Run the same command again to resume.",
        epilog="examples: %(prog)s scan_orders; %(prog)s study.yaml iterations=2000 --only raster "
        "hilbert -o runs/mine; Ctrl-C saves and stops",
        allow_abbrev=False,
    )
    parser.add_argument(
        "study", help=f"a study ({', '.join(list_studies())}) or a file of yours, .yaml"
    )
    parser.add_argument(
        "settings",
        nargs="*",
        default=[],  # without it, argparse would call them required
        metavar="key=value",
        help="settings that replace those of all variants, such as iterations=1000",
    )
    parser.add_argument("-o", "--output", type=Path, help="folder of the study [runs/STUDY]")
    parser.add_argument(
        "--only", nargs="+", metavar="VARIANT", help="train these variants only [all]"
    )
    parser.add_argument(
        "--seeds",
        type=whole("--seeds", 1, 1000),
        metavar="N",
        help="train with the seeds 0 to N - 1 [those of the study]; finished runs with others stay "
        "in the report",
    )
    add_machine_options(parser)
    return run_command(parser, _run, arguments, prog=prog, intermixed=True)


def _run(options: argparse.Namespace) -> None:
    with machine_options(options), process_group(options.device) as group:
        if not group.is_first:
            logging.getLogger("zoo").setLevel(logging.ERROR)
        study = group.from_first(lambda: load_study(options.study))
        if options.seeds is not None:
            study = replace(study, seeds=tuple(range(options.seeds)))
        folder = options.output or Path("runs") / study.name
        trained = run_study(
            study,
            folder,
            names=options.only or (),
            settings=overrides_of(options.settings),
            device=options.device,
            num_workers=options.num_workers,
            tf32=options.tf32,
            group=group,
        )
        if group.is_first:
            if any(variant.name == study.reference for variant in trained):
                print(table(trained, study.reference) + NOTES)  # noqa: T201
                logger.info("wrote %s", folder / "summary.md")
            else:
                logger.info(
                    "wrote %s; the table and the picture need a run of %r, the reference",
                    folder / "results.csv",
                    study.reference,
                )


if __name__ == "__main__":
    sys.exit(main())
