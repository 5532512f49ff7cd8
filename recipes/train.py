"""Train a network from its recipe: ``python recipes/train.py NAME [key=value ...]``.

Photos are degraded on the fly. A run lives in one folder: ``weights.safetensors`` (the network and
its recipe), ``checkpoint.pt`` (all that a resume needs), ``metrics.jsonl``. Starting the same
command again resumes; on a CPU the resumed run is the uninterrupted one, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from zoo.burst_training import BurstTask, burst_task
from zoo.checkpoints import save
from zoo.data.patches import PatchDataset, load_training_photos
from zoo.errors import CheckpointError, RecipeError, ZooError
from zoo.evaluation import evaluate, mean_score, validation_photos
from zoo.extensions import import_parts
from zoo.networks import Network
from zoo.ops.scan import BackendError
from zoo.recipe import Recipe, build, load_recipe, parse_value
from zoo.settings import TrainSettings, train_settings

logger = logging.getLogger("zoo.train")

CHECKPOINT, WEIGHTS, METRICS = "checkpoint.pt", "weights.safetensors", "metrics.jsonl"


class Trainer:
    """One training run: its state, its steps, and how it is saved and resumed.

    Args:
        recipe: what to train and how.
        folder: where the run lives.
        device: where to train.
        workers: processes that prepare patches.
    """

    def __init__(self, recipe: Recipe, folder: Path, *, device: str, workers: int) -> None:
        self.recipe, self.folder, self.device, self.workers = recipe, folder, device, workers
        self.settings: TrainSettings = train_settings(recipe)
        torch.manual_seed(self.settings.seed)
        self.network: Network = build(recipe).to(device).train()
        self.loss = self.settings.loss.to(device)
        self.optimizer = self._optimizer()
        # Read now: what cannot be read is told before the training, not hours into it.
        self.burst: BurstTask | None = burst_task(self.settings, self.network)
        self.patches: Dataset[Any]
        if self.burst is None:
            self._load_photos()
        else:
            self.patches = self.burst.dataset
        self.step = 0
        self.seconds = 0.0

    def _load_photos(self) -> None:
        self.degradation = self.settings.data.degradation(scale=self.network.scale)
        photos = load_training_photos(self.settings.data.photos)
        self.validation = validation_photos(self.settings.data.validate)
        self.patches = PatchDataset(
            photos,
            degradation=self.degradation,
            patch=self.settings.data.patch,
            channels=self.network.channels,
            length=self.settings.iterations * self.settings.data.batch,
            seed=self.settings.seed,
        )

    def _optimizer(self) -> torch.optim.Optimizer:
        chosen = self.settings.optimizer
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[chosen.type]
        return kind(
            self.network.parameters(),
            lr=chosen.lr,
            betas=chosen.betas,
            weight_decay=chosen.weight_decay,
        )

    def run(self) -> None:
        """Train to the last step; on Ctrl-C or SIGTERM save and stop."""
        signal.signal(signal.SIGTERM, _interrupt)
        settings = self.settings
        progress = tqdm(
            total=settings.iterations, initial=self.step, unit="step", disable=None, leave=True
        )
        begun = time.monotonic() - self.seconds
        total, counted = 0.0, 0
        try:
            for batch in self._batches():
                value = self._train_step(*batch)
                total, counted = total + value, counted + 1
                self.seconds = time.monotonic() - begun
                progress.update()
                last = self.step == settings.iterations
                if self.step % settings.log_every == 0 or last:
                    mean = total / counted
                    total, counted = 0.0, 0
                    progress.set_postfix(loss=f"{mean:.4f}")
                    self._log(loss=mean, lr=self.optimizer.param_groups[0]["lr"])
                if self.step % settings.save_every == 0 or last:
                    self._validate()
                    self.save()
        except KeyboardInterrupt:
            self.save()
            logger.warning("stopped at step %d; the same command resumes there", self.step)
            raise
        finally:
            progress.close()

    def _batches(self) -> Iterator[Sequence[Tensor]]:
        batch = self.settings.data.batch
        length = self.settings.iterations * batch
        left = Subset(self.patches, range(self.step * batch, length))
        return iter(DataLoader(left, batch_size=batch, num_workers=self.workers))

    def _train_step(self, *batch: Tensor) -> float:
        settings, chosen = self.settings, self.settings.optimizer
        factor = settings.schedule.factor(self.step, settings.iterations, chosen.lr)
        for group in self.optimizer.param_groups:
            group["lr"] = chosen.lr * factor
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss_of(*(tensor.to(self.device) for tensor in batch))
        value = float(loss.detach())
        if not value < float("inf"):
            raise ZooError(
                f"the loss is {value} at step {self.step + 1}: training diverged; lower "
                "train.optimizer.lr or set train.clip; the last checkpoint is kept"
            )
        loss.backward()
        if settings.clip:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip)
        self.optimizer.step()
        self.step += 1
        return value

    def _loss_of(self, degraded: Tensor, clean_BIHW: Tensor, *more: Tensor) -> Tensor:
        if self.burst is not None:
            done = self.step / self.settings.iterations
            return self.burst.loss(self.loss, degraded, clean_BIHW, *more, done=done)
        return self.loss(self.network(degraded), clean_BIHW)

    def _validate(self) -> None:
        if self.burst is not None:
            self._log(**self.burst.validate())
            return
        scores = evaluate(self.network, self.validation, self.degradation)
        mean = mean_score(scores)
        self._log(psnr=mean.restored, baseline=mean.baseline, photos=[s._asdict() for s in scores])
        logger.info(
            "step %d: %.2f dB, %.2f dB without the network", self.step, mean.restored, mean.baseline
        )

    def _log(self, **values: Any) -> None:
        line = json.dumps({"step": self.step, "seconds": round(self.seconds, 1), **values})
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def save(self) -> None:
        """Write the checkpoint and the weights; each appears whole or not at all."""
        state = {
            "recipe": json.dumps(self.recipe.data(), sort_keys=True),
            "step": self.step,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }
        handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=f".{CHECKPOINT}.")
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.folder / CHECKPOINT)
        finally:
            Path(temporary).unlink(missing_ok=True)
        save(self.network, self.folder / WEIGHTS, step=str(self.step))

    def resume(self) -> None:
        """Go on from the checkpoint in the folder, where there is one.

        Raises:
            CheckpointError: if it is damaged or belongs to another recipe.
        """
        path = self.folder / CHECKPOINT
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(
                f"{path}: the checkpoint is damaged; move it away to begin anew"
            ) from error
        if state["recipe"] != json.dumps(self.recipe.data(), sort_keys=True):
            raise CheckpointError(
                f"{path}: belongs to another recipe or other settings; choose another --output, "
                "or give the settings of that run"
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.step, self.seconds = state["step"], state["seconds"]
        logger.info("resumed at step %d", self.step)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """Turn ``key=value`` words into recipe overrides; keys may leave out ``train.``.

    Raises:
        RecipeError: for a word without "=".
    """
    overrides = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise RecipeError(f"{word!r} is no setting; write key=value, such as iterations=1000")
        known = key.split(".")[0] in ("train", "network", "name", "summary")
        overrides[key if known else f"train.{key}"] = parse_value(value)
    return overrides


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train a network from its recipe. The same command again resumes the run.",
        epilog="example: python recipes/train.py mambair_tiny_x2 data.photos=my/photos "
        "iterations=20000 network.dim=48",
    )
    parser.add_argument("name", help="a model (see 'zoo list') or a recipe file, .yaml")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings to override")
    parser.add_argument("-o", "--output", type=Path, help="folder of the run [runs/NAME]")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes preparing patches [1]")
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="module with parts of your own; may be repeated",
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        import_parts(options.imports)
        recipe = load_recipe(options.name, parse_overrides(options.settings))
        folder = options.output or Path("runs") / recipe.name
        folder.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(recipe, folder, device=options.device, workers=options.workers)
        trainer.resume()
        trainer.run()
    except KeyboardInterrupt:
        return 130
    except (ZooError, BackendError, OSError) as error:
        if options.debug:
            raise
        logger.error("error: %s", error)
        return 2
    logger.info("done: %s", folder / WEIGHTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
