"""Evaluate a network on test sets: ``python recipes/evaluate.py NAME -w WEIGHTS --data ROOT``.

Prints and writes a table of PSNR and SSIM as in papers, with the paper's scores beside ours if the
recipe has them. ``torchrun --nproc-per-node=N recipes/evaluate.py ...`` shares the images among N
processes.
"""

from __future__ import annotations

import zoo.startup  # noqa: F401 - before all others, as in "python -m recipes.evaluate"

# isort: split
import argparse
import logging
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from zoo.checkpoints.scored import RUN_WEIGHTS, ScoredWeights, scored_weights
from zoo.command import COMPAT, run_command, whole
from zoo.data.burst.sets import find_burst_set
from zoo.data.degradations import Degradation
from zoo.data.photos import SAMPLES_SOURCE
from zoo.data.testsets import (
    TestImage,
    find_test_set,
    is_test_set,
    set_names,
    spellings,
    validation_images,
)
from zoo.data.value_range import ValueRange, is_photographic, range_of
from zoo.distributed import DEVICE, ProcessGroup, default_device, map_shared, process_group
from zoo.errors import ZooError
from zoo.evaluation import Protocol, Run, Score, evaluate
from zoo.evaluation.burst import burst_tests, evaluate_burst, measured
from zoo.evaluation.keeping import Keeper, check_nothing_is_replaced, image_keeper
from zoo.evaluation.official_tiling import tiled
from zoo.evaluation.report import SUMMARY, Published, SetResult, markdown, write_report
from zoo.evaluation.settings import EvaluateSettings, evaluate_settings, protocol_of
from zoo.files import check_writable
from zoo.inference import RestoreSettings, restore_tensor
from zoo.networks import Network
from zoo.ops.precision import DTYPES, TF32
from zoo.recipe import Recipe, load_recipe
from zoo.training.burst_task import validation_bursts
from zoo.training.settings import BurstTrainSettings, train_settings

logger = logging.getLogger("zoo.evaluate")


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run the command under the name ``prog`` and return its exit code; 2 means bad input."""
    return run_command(_parser(), _run, arguments, prog=prog)


def _run(options: argparse.Namespace) -> None:
    with process_group() as group:
        evaluate_recipe(options, group)


def evaluate_recipe(options: argparse.Namespace, group: ProcessGroup) -> None:
    """Evaluate a recipe with the options of the command line, and write the report."""
    recipe = load_recipe(options.name)
    settings = evaluate_settings(recipe)
    source = scored_weights(recipe, options.weights)
    if group.is_first:
        logger.info("weights: %s", source.told)
    overrides = {} if options.compat is None else {"compat": options.compat}
    network = source.network(recipe, overrides).to(group.device(options.device))
    if network.takes_burst:
        run_bursts(options, group, recipe, network, source)
        return
    value_range = range_of(recipe)
    degradation = _degradation(recipe, settings, network.scale)
    if degradation is not None:
        photographic = is_photographic(network.channels, value_range)
        degradation = degradation.for_data(photographic=photographic)
    _check_tiling(options, settings, network, recipe.name)
    sets = _sets(options, settings, degradation, network, value_range)
    if group.is_first:
        check_writable(_report_folder(options, recipe) / SUMMARY)  # before hours of scoring
    protocol = protocol_of(settings, network, value_range)
    through = _through(network, settings, options)
    results = []

    def score(image: TestImage, keep: Keeper) -> Score:
        [found] = evaluate(network, [image], degradation, protocol=protocol, run=through, seen=keep)
        return found

    for name, images in sets.items():
        folder = options.save_images and options.save_images / name
        scores = _scores(name, images, score, group, folder)
        inputs = "files" if images[0].degraded is not None else "made"
        results.append(SetResult(name, scores, inputs))
    if not group.is_first:
        return
    paper = settings.paper_ensemble if options.ensemble else settings.paper
    released = None if options.ensemble else settings.released
    published = Published(paper or {}, released or {})
    notes = _notes(network, protocol, options)
    if settings.source and published.paper:
        notes += f" Paper: {settings.source}."
    notes += f" Weights: {source.told}."
    _report(options, recipe, notes, results, published, "bicubic" if network.scale > 1 else "input")


def run_bursts(
    options: argparse.Namespace,
    group: ProcessGroup,
    recipe: Recipe,
    network: Network,
    source: ScoredWeights,
) -> None:
    """Evaluate a burst network on the fixed synthetic bursts, or on a folder of bursts."""
    for name in ("sets", "degrade", "save_images", "ensemble", "official_tiling"):
        if getattr(options, name):
            raise ZooError(f"--{name.replace('_', '-')} is for single images, not for bursts")
    settings = train_settings(recipe)
    assert isinstance(settings, BurstTrainSettings)
    wanted = evaluate_settings(recipe)
    known: str | None = None
    place = Path(options.data)
    if options.data != SAMPLES_SOURCE:
        known, place = find_burst_set(place, wanted.datasets)
        if known is None and group.is_first:
            logger.info(
                "%s is none of the recipe's sets (%s), so no score of the paper is shown",
                *(place, ", ".join(wanted.datasets) or "it has none"),
            )
    tests = burst_tests(str(place), lambda: validation_bursts(settings.data, network))
    if group.is_first:
        check_writable(_report_folder(options, recipe) / SUMMARY)
    border = settings.data.border
    through = RestoreSettings(tile=options.tile, precision=options.precision, tf32=options.tf32)
    scores = map_shared(
        group,
        len(tests),
        lambda number: evaluate_burst(network, tests[number], border, through),
        task="evaluate/bursts",
        unit="burst",
    )
    if not group.is_first:
        return
    inputs = "made" if options.data == SAMPLES_SOURCE else "files"
    notes = (
        f"{measured(network, tests[0].kind)}, 14 bits, {border} border pixels excluded. The "
        "baseline is the bilinearly upsampled reference frame, registered at the corner. "
    )
    paper = (wanted.paper or {}) if known else {}
    if paper and wanted.source:
        notes += f"Paper: {wanted.source}. "
    results = [SetResult(known or Path(options.data).name, scores, inputs)]
    notes += f"Weights: {source.told}."
    _report(options, recipe, notes, results, Published(paper), "upsampled reference")


def _report(
    options: argparse.Namespace,
    recipe: Recipe,
    notes: str,
    results: list[SetResult],
    published: Published,
    baseline: str,
) -> None:
    title = f"{recipe.name}{'+' if options.ensemble else ''}"
    text = markdown(title, notes, results, published, baseline)
    sys.stdout.write(text)
    written = write_report(_report_folder(options, recipe), text, results, published)
    logger.info("wrote %s", ", ".join(str(path) for path in written))


def _report_folder(options: argparse.Namespace, recipe: Recipe) -> Path:
    folder: Path = options.output or Path("results") / recipe.name
    return folder


def _degradation(recipe: Recipe, settings: EvaluateSettings, scale: int) -> Degradation | None:
    if settings.degradation is not None:
        return settings.degradation(scale=scale)
    if not recipe.train:
        return None
    made = train_settings(recipe).data.degradation
    return None if made is None else made(scale=scale)


def _sets(
    options: argparse.Namespace,
    settings: EvaluateSettings,
    degradation: Degradation | None,
    network: Network,
    value_range: ValueRange | None,
) -> dict[str, list[TestImage]]:
    if options.data == SAMPLES_SOURCE:
        images = validation_images(SAMPLES_SOURCE, guides=list(network.guides))
        return {SAMPLES_SOURCE: images}

    def found_in(folder: Path, name: str) -> list[TestImage] | None:
        return find_test_set(
            folder,
            name,
            degradation,
            network.scale,
            made=options.degrade,
            guides=network.guides,
            value_range=value_range,
        )

    root = Path(options.data)
    known = set_names(root)
    wanted = settings.datasets
    if options.sets:
        wanted = tuple(dict.fromkeys(_as_listed(name, settings.datasets) for name in options.sets))
    found = {name: found_in(root, name) for name in wanted}
    missing = [name for name, images in found.items() if images is None]
    if missing and options.sets:
        raise ZooError(f"--sets: {missing[0]!r} is not in {root}, which has {', '.join(known)}")
    sets = {name: images for name, images in found.items() if images is not None}
    if not sets:
        place = root.absolute()
        alone = found_in(place.parent, place.name) if is_test_set(root) else None
        if alone is None:
            named = (
                f"none of the recipe's test sets ({', '.join(wanted)})" if wanted else "no images"
            )
            inside = f"; choose from its folders with --sets: {', '.join(known)}" if known else ""
            raise ZooError(f"{root} has {named}{inside or '; check the path'}")
        return {place.name: alone}
    if missing:
        logger.info("skipped, not in %s: %s", root, ", ".join(missing))
    return sets


def _as_listed(name: str, listed: Sequence[str]) -> str:
    """Return the name that the recipe has for a test set, which stands beside the paper's score."""
    return next((known for known in listed if known.lower() in spellings(name)), name)


def _through(network: Network, settings: EvaluateSettings, options: argparse.Namespace) -> Run:
    chosen = RestoreSettings(
        tile=options.tile,
        ensemble=options.ensemble,
        precision=options.precision,
        tf32=options.tf32,
    )

    def through(image_BIHW: Tensor, *guides: Tensor) -> Tensor:
        return restore_tensor(network, image_BIHW, chosen, guides=guides)

    tiling = settings.tiling
    if not options.official_tiling or tiling is None:
        return through
    return lambda image_BIHW: tiled(through, image_BIHW, network.scale, tiling)


def _check_tiling(
    options: argparse.Namespace, settings: EvaluateSettings, network: Network, name: str
) -> None:
    if not options.official_tiling:
        return
    if network.guides:
        raise ZooError("--official-tiling is for networks without guides; use --tile")
    if options.tile:
        raise ZooError("--official-tiling and --tile are two ways to cut images; give one of them")
    if settings.tiling is None:
        raise ZooError(
            f"--official-tiling: {name} states no tiling of its authors (evaluate.tiling), who "
            "restore images whole or have not published it; leave it out"
        )


def _scores(
    name: str,
    images: Sequence[TestImage],
    score: Callable[[TestImage, Keeper], Score],
    group: ProcessGroup,
    folder: Path | None,
) -> list[Score]:
    """Return the scores of a set; write its restored images to the folder, if given.

    Raises:
        ZooError: if a restored image would replace an image of the set.
    """
    if folder is not None:
        check_nothing_is_replaced(images, folder)
    keep = image_keeper(folder)
    scores = map_shared(
        group,
        len(images),
        lambda number: score(images[number], keep),
        task=f"evaluate/{name}",
        unit="image",
    )
    wrong = [found.name for found in scores if math.isnan(found.psnr)]
    if wrong:
        logger.warning(
            "%s: %d of %d results have NaN or infinite values, such as %s; the network has "
            "diverged, or it overflows in fp16",
            *(name, len(wrong), len(scores), wrong[0]),
        )
    return scores


def _notes(network: Network, protocol: Protocol, options: argparse.Namespace) -> str:
    channel, crop = protocol.for_scale(network.scale)
    what = "the Y channel (BT.601)" if channel == "y" else "all channels"
    bits = "8 bits" if protocol.rounds else "not rounded"
    cut = "tiled as in the authors' code" if options.official_tiling else "whole"
    if options.tile:
        cut = f"in blended tiles of {options.tile} pixels"
    parts = [
        f"PSNR (dB) and SSIM on {what}, {bits}, {crop} border pixels excluded; each image {cut}.",
    ]
    if protocol.ssim == "volume":
        parts.append("SSIM of the image as a volume, as in MATLAB.")
    if options.compat:
        parts.append(
            "Tokens of the coarse scan return as in the authors' code (--compat official)."
        )
    if options.ensemble:
        parts.append("Self-ensemble of 8 flips and quarter turns.")
    if options.precision != "fp32":
        parts.append(f"Precision {options.precision}.")
    if options.tf32:
        parts.append("TF32 was allowed.")
    return " ".join(parts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python recipes/evaluate.py",
        description="Evaluate a network on test sets, with the paper's scores beside ours.",
        epilog="example: %(prog)s mambair_light_x2 -w light_x2.pth --data datasets; "
        "sets are folders such as datasets/Set5, see docs/data.md",
    )
    parser.add_argument("name", help="a model (see 'zoo list') or a recipe file, .yaml")
    parser.add_argument(
        "-w",
        "--weights",
        type=Path,
        help=f"weights file, or the name of a model whose weights are in the package "
        f"[runs/NAME/{RUN_WEIGHTS} if NAME was trained here, otherwise those in the package]",
    )
    parser.add_argument(
        "--data",
        default=SAMPLES_SOURCE,
        metavar="ROOT",
        help="a folder of test sets, one test set, a folder of bursts with their clean images, or "
        '"samples" for the bundled photos [samples]',
    )
    parser.add_argument(
        "--sets", nargs="+", metavar="SET", help="test sets to use [the paper's test sets]"
    )
    parser.add_argument(
        "--degrade",
        action="store_true",
        help="compute degraded images, even if the set has files of them",
    )
    parser.add_argument("-o", "--output", type=Path, help="folder to write [results/NAME]")
    parser.add_argument(
        "--save-images", type=Path, metavar="FOLDER", help="folder to write restored images to"
    )
    parser.add_argument(
        "--ensemble", action="store_true", help='use self-ensemble, "+" in the papers'
    )
    parser.add_argument(
        "-t",
        "--tile",
        type=whole("--tile", 0),
        default=0,
        help="side of blended tiles in pixels, 0 for no tiles [0]",
    )
    parser.add_argument(
        "--official-tiling", action="store_true", help="tile images as the authors' code does"
    )
    parser.add_argument("--compat", choices=["official"], help=COMPAT)
    parser.add_argument(
        "--precision", choices=list(DTYPES), default="fp32", help="precision of the layers [fp32]"
    )
    parser.add_argument("--tf32", action="store_true", help=TF32)
    parser.add_argument("--device", default=default_device(), **DEVICE)
    return parser


if __name__ == "__main__":
    sys.exit(main())
