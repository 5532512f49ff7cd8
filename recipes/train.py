"""Train a network from its recipe: ``python recipes/train.py NAME [key=value ...]``.

Photos are degraded on the fly, or are read as pairs of files. The folder of a run contains
``weights.safetensors`` (the network and its recipe), ``checkpoint-STEP.pt`` (the state for
resuming), ``metrics.jsonl`` and ``validation/`` (pictures). The same command resumes the run, also
after the process was killed at any moment. On a CPU, a resumed run gives exactly the same result as
an uninterrupted one. ``torchrun --nproc-per-node=N recipes/train.py NAME`` trains with the same
batches on N processes.
"""

from __future__ import annotations

import zoo.startup  # before all others, as in "python -m recipes.train"

# isort: split
import argparse
import copy
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from zoo.checkpoints import save
from zoo.command import run_command
from zoo.distributed import ProcessGroup, process_group
from zoo.errors import ToldElsewhereError, ZooError, no_effect_is_told
from zoo.inference.kept import kept_memory
from zoo.networks import Network
from zoo.ops.precision import autocast, float32_products
from zoo.recipe import Recipe, build, load_recipe
from zoo.training import (
    EMA,
    MEASURED,
    WEIGHTS,
    Adversary,
    LastState,
    Progress,
    StepValues,
    StopSignals,
    affordable,
    batches,
    continued,
    count_examples,
    default_workers,
    enable_gradient_checkpointing,
    in_steps,
    is_below,
    is_validated,
    last_state,
    load_initial_weights,
    make_optimizer,
    make_task,
    parse_duration,
    remove_checkpoint,
    remove_old_checkpoints,
    report,
    request_of,
    restore_optimizer,
    restore_rng_state,
    restoring,
    rng_kept,
    rng_state,
    run_folder,
    seed_all,
    shortened,
    what_is_kept,
    write_checkpoint,
)
from zoo.training.options import add_machine_options, machine_options, overrides_of
from zoo.training.settings import TrainSettings, train_settings

logger = logging.getLogger("zoo.train")

LOWEST_SCALE = 2.0**-10
"""Smallest fp16 loss scale; if it is below this, every step overflows."""


class Trainer:
    """One training run: its state and its steps; it can be saved and resumed.

    Args:
        recipe: the network and its training.
        folder: folder of the run.
        device: device to train on, "cpu" or "cuda".
        num_workers: number of processes that load data; None for what suits the device.
        group: processes that train together; None for this process alone.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        *,
        device: str,
        num_workers: int | None = None,
        group: ProcessGroup | None = None,
    ) -> None:
        self.folder = folder
        self.group = group or ProcessGroup()
        self.device = self.group.device(device)
        self.num_workers = default_workers(self.device) if num_workers is None else num_workers
        self.on_cuda = self.device.startswith("cuda")
        self.group.together(lambda: self._prepare(recipe))
        module = self.task.module(self.network)
        if self.settings.compile:
            # Not the network itself: validation has images of other sizes, each a compilation.
            module = cast(nn.Module, torch.compile(module))
        self.model = self.group.wrap(module, self.device)
        if self.group.rank:
            # All ranks start from the same weights, but each draws its own drop path.
            seed_all(self.settings.seed * self.group.world_size + self.group.rank)
        self.step = 0
        self.seconds = 0.0
        self.losses: list[float] = []  # since the last line of the log
        self._unread = StepValues(self.group)
        self.requested = ""
        self.measures_anew = False  # a finished run, because what is measured has changed

    def _prepare(self, recipe: Recipe) -> None:
        """Build what learns and what it learns from; each process does this without the others."""
        self.recipe = recipe = in_steps(recipe)
        self.settings: TrainSettings = train_settings(recipe)
        self.photos = count_examples(self.settings)  # or bursts; when the run began
        seed_all(self.settings.seed)
        self.network: Network = build(recipe)
        if self.settings.initial is not None:
            load_initial_weights(self.network, self.settings.initial)
        self.network.to(self.device).train()
        if self.settings.gradient_checkpointing:
            enable_gradient_checkpointing(self.network)
        self.settings.loss.prepare(self.network.out_channels)
        self.loss = self.settings.loss.to(self.device)
        self.optimizer = make_optimizer(self.network, self.settings.optimizer)
        self.scaler = torch.amp.GradScaler(
            self.device.partition(":")[0], enabled=self.settings.precision == "fp16"
        )
        self.ema = EMA(self.network, self.settings.ema)
        self.adversary: Adversary | None = None
        if self.settings.adversarial is not None:
            self.adversary = Adversary(
                self.settings, self.network.out_channels, self.device, self.group
            )
        self.task = make_task(recipe, self.settings, self.network, progress=self.group.is_first)

    def run(self) -> None:
        """Train to the last step; on SIGINT or SIGTERM, finish the step, save and stop.

        Raises:
            KeyboardInterrupt: if a signal stopped the training.
            ZooError: if the training diverges, or data cannot be loaded.
        """
        settings = self.settings
        ended = self.step == settings.iterations
        validates = self._lacks_validation() or (ended and self.measures_anew)
        if ended and not validates:
            self._publish()  # the last run may have been killed before it did
            return
        begun = time.monotonic() - self.seconds
        progress = Progress(self.folder, self.task.plan, self.step, is_first=self.group.is_first)
        with StopSignals() as signals, progress:
            if validates:
                self._validate(progress)
                progress.restart_clock(self.step)
                if ended:
                    self._write_checkpoint()  # it says what has been measured
            for micro_batches in () if ended else self._saved_batches():
                found = self._train_step(micro_batches)
                self._unread.keep(self.step, found)
                # All processes stop at the same step, whichever of them got the signal.
                [stop] = self.group.add(signals.received)
                last = self.step == settings.iterations
                to_log = self.step % settings.log_every == 0 or last
                to_save = self.step % settings.save_every == 0 or last
                if to_log or to_save or stop or not self.on_cuda:
                    self._read_values()
                self.seconds = time.monotonic() - begun
                progress.advance()
                if to_log:
                    mean = sum(self.losses) / len(self.losses)
                    self.losses = []
                    lr = self.optimizer.param_groups[0]["lr"]
                    others = self.adversary.take_means() if self.adversary else {}
                    progress.show_loss(self.step, self.seconds, mean, lr, **others)
                if to_save:
                    # First: whatever happens in a validation costs no step.
                    self._write_checkpoint()
                    self._validate(progress)
                    progress.restart_clock(self.step)
                elif stop:
                    self.save()
                if stop and not last:
                    logger.warning("stopped at step %d; the same command resumes it", self.step)
                    raise KeyboardInterrupt

    def _saved_batches(self) -> Iterator[list[Sequence[Tensor]]]:
        """Pass on the batches; if one cannot be loaded, save the steps before it first."""
        try:
            yield from self._batches()
        except ZooError:
            # Several processes save together, but the others go on.
            if self.group.world_size == 1 and self.step:
                self._read_values()
                self.save()
                logger.warning("saved at step %d; the same command resumes there", self.step)
            raise

    def _batches(self) -> Iterator[list[Sequence[Tensor]]]:
        return batches(
            self.task.examples,
            self.task.plan,
            step=self.step,
            accumulate=self.settings.accumulate,
            group=self.group,
            num_workers=self.num_workers,
            pool=getattr(self.settings.data, "pool", 0),  # bursts have none
            seed=self.settings.seed,
            pinned=self.on_cuda,
        )

    def _train_step(self, micro_batches: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """Do one update with the process's share of a batch.

        Nothing here reads a value of the device, which would make a GPU wait.

        Returns:
            For each micro-batch, its share of the mean loss, and the values of the discriminator.
        """
        settings, chosen = self.settings, self.settings.optimizer
        factor = settings.schedule.factor(self.step, settings.iterations, chosen.lr)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = chosen.lr * factor
        self.optimizer.zero_grad()
        count = len(micro_batches)
        values: list[list[Tensor]] = []
        critic = self.adversary.term if self.adversary else None
        for number, micro_batch in enumerate(micro_batches, 1):
            with self._gradient_sync(number == count):
                on_device = [
                    tensor.to(self.device, non_blocking=self.on_cuda) for tensor in micro_batch
                ]
                done = self.step / settings.iterations
                loss = self.task.loss(self._forward, self.loss, on_device, done, critic) / count
                self.scaler.scale(loss).backward()
            values.append([loss.detach()])
            if self.adversary:
                values[-1] += self.adversary.learn(self.scaler, count)
        self.scaler.unscale_(self.optimizer)
        if settings.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip)
        self.scaler.step(self.optimizer)
        if self.adversary:
            self.adversary.step(self.scaler, self.step)
        self.scaler.update()
        self.step += 1
        self.ema.update(self.step)
        return values

    def _read_values(self) -> None:
        """Read and check the losses of the steps since the last call.

        Raises:
            ZooError: if the training diverges.
        """
        for step, (loss, *values) in self._unread.read():
            self._check_loss(loss, step)
            self.losses.append(loss)
            if self.adversary:
                self._check_loss(sum(map(abs, values)), step)
                self.adversary.note(values)
        if self.scaler.is_enabled() and self.scaler.get_scale() < LOWEST_SCALE:
            raise self._told_once(
                f"float16 overflows at every step (step {self.step}): use train.precision=bf16; "
                + what_is_kept(self.folder)
            )

    def _forward(self, *inputs: Tensor) -> Any:
        with autocast(self.device, self.settings.precision):
            return self.model(*inputs)

    def _gradient_sync(self, wanted: bool) -> AbstractContextManager[Any]:
        """Return a context that exchanges gradients between processes only if ``wanted``."""
        if isinstance(self.model, nn.parallel.DistributedDataParallel) and not wanted:
            return self.model.no_sync()
        return nullcontext()

    def _check_loss(self, loss: float, step: int) -> None:
        if not loss < float("inf"):
            raise self._diverged(f"the loss is {loss}", step)

    def _diverged(self, what: str, step: int | None = None) -> ZooError:
        at = self.step if step is None else step
        return self._told_once(
            f"{what} at step {at}: training diverged; lower train.optimizer.lr or set train.clip; "
            + what_is_kept(self.folder)
        )

    def _told_once(self, message: str) -> ZooError:
        """Return an error that all processes find at the same step, in losses or weights of all."""
        return (ZooError if self.group.is_first else ToldElsewhereError)(message)

    def _lacks_validation(self) -> bool:
        """Whether this step was saved by a process that ended before the validation did."""
        due = self.step % self.settings.save_every == 0 or self.step == self.settings.iterations
        if not (self.step and due):
            return False
        return not self.group.from_first(lambda: is_validated(self.folder, self.step))

    def _validate(self, progress: Progress) -> None:
        """Validate the state that the newest checkpoint holds, and write its weights.

        Raises:
            ZooError: if the network has diverged; the checkpoint is removed.
            Exception: any error of the validation; the checkpoint and the weights stay.
        """
        step = self.step
        try:
            # Training draws the same numbers however often it is validated, and on what.
            with rng_kept(self.device), self.ema.applied():
                values, pictures = self.task.validate(self.network, self.group)
            # The last loss was computed before the last update.
            finite = all(np.isfinite(picture_HWC).all() for picture_HWC in pictures.values())
            diverged = math.isnan(values["psnr"]) or not finite
            if not diverged:
                self.group.together(
                    lambda: progress.show_validation(step, self.seconds, values, pictures)
                )
        except Exception:
            self._publish()
            logger.warning(
                "the validation of step %d failed, its checkpoint is saved; the same command "
                "repeats the validation and goes on",
                step,
            )
            raise
        if diverged:
            if self.group.is_first:
                remove_checkpoint(self.folder, step=step)
            raise self._diverged("the network's output is infinite or undefined")
        self._publish()

    def measure(self, allowed: float = 0.0) -> tuple[float, float]:
        """Measure the seconds of a step and of a validation; the state is restored afterwards.

        Args:
            allowed: time for the steps in seconds; at least 4 and at most 50 steps are done.
        """
        before = copy.deepcopy(self.state())
        found: list[float] = []
        for micro_batches in self._batches():
            begun = time.monotonic()
            self._train_step(micro_batches)
            if self.on_cuda:
                torch.cuda.synchronize(self.device)
            found.append(time.monotonic() - begun)
            [spent] = self.group.add(sum(found))
            if len(found) == 50 or (len(found) >= 4 and spent >= allowed * self.group.world_size):
                break
        begun = time.monotonic()
        self.task.validate(self.network, self.group)
        validation = time.monotonic() - begun
        self.restore(before)
        # Exclude the first step, which also builds scan orders and buffers.
        step = sorted(found[1:] or found)[len(found[1:]) // 2]
        step, validation = (sum(self.group.gather(x)) for x in (step, validation))
        return step / self.group.world_size, validation / self.group.world_size

    def state(self) -> dict[str, Any]:
        """Return the complete state, for resuming."""
        return {
            "recipe": json.dumps(self.recipe.data()),
            "requested": self.requested,
            "photos": self.photos,
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
            "network": self.network.state_dict(),
            "ema": self.ema.state,
            "optimizer": self.optimizer.state_dict(),
            "adversary": self.adversary.state() if self.adversary else {},
            "scaler": self.scaler.state_dict(),
            "rng": self.group.gather(rng_state(self.device)),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state that :meth:`state` returned."""
        if state["step"] not in range(self.settings.iterations + 1):
            raise ValueError(f"step {state['step']!r} of {self.settings.iterations}")
        self.network.load_state_dict(state["network"])
        self.ema.load(state["ema"])
        restore_optimizer(self.optimizer, state["optimizer"])
        if self.adversary:
            self.adversary.restore(state["adversary"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.losses, self.requested = list(map(float, state["losses"])), state["requested"]
        now, self.photos = self.photos, int(state.get("photos", self.photos))
        if now != self.photos:
            logger.warning(
                "the training data has %d photos or bursts, and had %d when the run began: the "
                "schedule of %d steps stays, and the steps to come draw from all that are there",
                *(now, self.photos, self.settings.iterations),
            )
        if len(state["rng"]) == self.group.world_size:
            restore_rng_state(state["rng"][self.group.rank], self.device)
        else:
            logger.warning(
                "resuming with %d processes instead of %d: the batches are the same, but drop path "
                "uses other random numbers",
                self.group.world_size,
                len(state["rng"]),
            )

    def save(self) -> None:
        """Write the checkpoint and the weights; each file appears whole or not at all.

        Raises:
            ZooError: if the last update has made a weight infinite or undefined.
        """
        self._write_checkpoint()
        self._publish()

    def _write_checkpoint(self) -> None:
        """Write the checkpoint alone; see :meth:`save`."""
        named = [*self.network.named_parameters()]
        if self.adversary:
            named += self.adversary.discriminator.named_parameters("discriminator")
        for name, weight in named:
            if not torch.isfinite(weight).all():
                raise self._diverged(f"{name} has infinite or undefined values")
        state = self.state()
        if self.group.is_first:
            write_checkpoint(self.folder, state, step=self.step)

    def _publish(self) -> None:
        """Write the weights of the newest checkpoint, and remove old checkpoints."""
        if not self.group.is_first:
            return
        remove_old_checkpoints(self.folder, step=self.step, keep=self.settings.keep)
        with self.ema.applied():
            save(self.network, self.folder / WEIGHTS, step=str(self.step))
        if self.adversary:
            self.adversary.publish(self.folder)


def train(
    recipe: Recipe,
    folder: Path,
    *,
    device: str = "cpu",
    num_workers: int | None = None,
    group: ProcessGroup | None = None,
    budget: str | None = None,
    tf32: bool = False,
) -> Trainer:
    """Train a recipe, or resume the training in the folder.

    Args:
        recipe: the network and its training.
        folder: folder of the run.
        device: device to train on, "cpu" or "cuda".
        num_workers: number of processes that load data; None for what suits the device.
        group: processes that train together; None for this process alone.
        budget: time for the training, such as "10m"; the schedule is shortened to match. None
            keeps the schedule.
        tf32: whether a GPU may compute float32 products and convolutions in TF32.

    Returns:
        The trainer, after its last step.

    Raises:
        CheckpointError: if the folder has a run that trains something else, or one without a
            readable checkpoint.
        WriteError: if the folder cannot be created or written, or another process trains in it.
        ZooError: if the recipe or the data cannot be used for training.
    """
    begun = time.monotonic()
    group = group or ProcessGroup()
    seconds = group.from_first(lambda: None if budget is None else parse_duration(budget))
    requested = request_of(recipe, budget)

    def trainer_of(recipe: Recipe) -> Trainer:
        return Trainer(recipe, folder, device=device, num_workers=num_workers, group=group)

    with ExitStack() as stack:
        stack.enter_context(float32_products(tf32=tf32))
        group.from_first(lambda: stack.enter_context(run_folder(folder)))
        found = group.from_first(lambda: last_state(folder, requested))
        if found is not None:
            trainer = _resumed(found, recipe, trainer_of, group)
        else:
            trainer = trainer_of(recipe)
            if seconds is not None:
                assert budget is not None
                step, validation = trainer.measure(0.05 * seconds)
                left = group.broadcast(seconds - (time.monotonic() - begun))
                recipe = shortened(trainer.recipe, affordable(left, step, validation))
                report(budget, step, trainer.settings, train_settings(recipe))
                trainer = trainer_of(recipe)
        trainer.requested = requested
        trainer.run()
        return trainer


def _resumed(
    found: LastState,
    recipe: Recipe,
    trainer_of: Callable[[Recipe], Trainer],
    group: ProcessGroup,
) -> Trainer:
    """Return a trainer with the state of a checkpoint."""

    def schedule() -> Recipe:
        with restoring(found.path):
            return continued(recipe, json.loads(found.state["recipe"]), found.changed)

    def restore() -> None:
        with restoring(found.path):
            trainer.restore(found.state)

    recipe = group.together(schedule)
    with no_effect_is_told():  # a run of an earlier version goes on
        trainer = trainer_of(recipe)
    group.together(restore)
    trainer.measures_anew = any(is_below(key, MEASURED) for key in found.changed)
    changed = f"; changed: {', '.join(found.changed)}" if found.changed else ""
    logger.info("resumed at step %d%s", trainer.step, changed)
    return trainer


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run the command under the name ``prog`` and return its exit code; 2 means bad input."""
    parser = argparse.ArgumentParser(
        prog="python recipes/train.py",
        description="Train a network from its recipe. Run the same command again to resume.",
        epilog="example: %(prog)s mambair_tiny_x2 data.photos=my/photos iterations=20000 "
        "network.dim=48; several GPUs: torchrun --nproc-per-node=8 "
        "recipes/train.py NAME; Ctrl-C or SIGTERM saves and stops, a second one stops immediately",
    )
    parser.add_argument("name", help="a model (see 'zoo list') or a recipe file, .yaml")
    parser.add_argument(
        "settings",
        nargs="*",
        default=[],  # without it, argparse would call them required
        metavar="key=value",
        help="settings that replace those of the recipe, such as iterations=1000",
    )
    parser.add_argument("-o", "--output", type=Path, help="folder of the run [runs/NAME]")
    parser.add_argument(
        "--budget",
        metavar="TIME",
        help="shorten the schedule to this training time, such as 90s, 10m, 1.5h or 2d",
    )
    add_machine_options(parser)
    return run_command(parser, _run, arguments, prog=prog, intermixed=True)


def _run(options: argparse.Namespace) -> None:
    # Each step frees and takes the same blocks. The process is ours only if it runs the command.
    kept = kept_memory() if zoo.startup.runs_a_command() else nullcontext()
    with kept, machine_options(options), process_group(options.device) as group:
        if not group.is_first:
            logging.getLogger("zoo").setLevel(logging.ERROR)
        recipe = group.from_first(lambda: load_recipe(options.name, overrides_of(options.settings)))
        folder = options.output or Path("runs") / recipe.name
        train(
            recipe,
            folder,
            device=options.device,
            num_workers=options.num_workers,
            group=group,
            budget=options.budget,
            tf32=options.tf32,
        )
        if group.is_first:
            logger.info("done: %s", folder / WEIGHTS)


if __name__ == "__main__":
    sys.exit(main())
