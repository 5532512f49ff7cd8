"""The parts of the trainer; the loop is in ``recipes/train.py``."""

from __future__ import annotations

from zoo.training.adversary import Adversary
from zoo.training.budget import affordable, parse_duration, report, shortened
from zoo.training.checkpoint import (
    latest_checkpoint,
    remove_checkpoint,
    remove_old_checkpoints,
    restoring,
    what_is_kept,
    write_checkpoint,
)
from zoo.training.choose_task import make_task
from zoo.training.ema import EMA
from zoo.training.epochs import count_examples, in_steps
from zoo.training.gradient_checkpointing import enable_gradient_checkpointing
from zoo.training.initial_weights import load_initial_weights
from zoo.training.loader import batches, default_workers
from zoo.training.metrics_log import MetricsLog, is_validated
from zoo.training.optimizer import make_optimizer, restore_optimizer
from zoo.training.progress import Progress
from zoo.training.request import MEASURED, continued, is_below, request_of
from zoo.training.rng import make_deterministic, restore_rng_state, rng_kept, rng_state, seed_all
from zoo.training.run_folder import WEIGHTS, LastState, last_state, run_folder
from zoo.training.signals import StopSignals
from zoo.training.step_values import StepValues
from zoo.training.task import Task, examples_of

__all__ = [
    "EMA",
    "MEASURED",
    "WEIGHTS",
    "Adversary",
    "LastState",
    "MetricsLog",
    "Progress",
    "StepValues",
    "StopSignals",
    "Task",
    "affordable",
    "batches",
    "continued",
    "count_examples",
    "default_workers",
    "enable_gradient_checkpointing",
    "examples_of",
    "in_steps",
    "is_below",
    "is_validated",
    "last_state",
    "latest_checkpoint",
    "load_initial_weights",
    "make_deterministic",
    "make_optimizer",
    "make_task",
    "parse_duration",
    "remove_checkpoint",
    "remove_old_checkpoints",
    "report",
    "request_of",
    "restore_optimizer",
    "restore_rng_state",
    "restoring",
    "rng_kept",
    "rng_state",
    "run_folder",
    "seed_all",
    "shortened",
    "what_is_kept",
    "write_checkpoint",
]
