"""What the trainer is made of, beside the loop in ``recipes/train.py``."""

from __future__ import annotations

from zoo.training.average import MovingAverage
from zoo.training.budget import affordable, parse_duration, report, shortened
from zoo.training.checkpoint import latest_checkpoint, write_checkpoint
from zoo.training.choose import make_task
from zoo.training.loader import batches
from zoo.training.randomness import random_state, restore_random_state, seed_all
from zoo.training.recompute import recompute_blocks
from zoo.training.record import Record
from zoo.training.signals import StopSignals
from zoo.training.start import start_from
from zoo.training.task import Task
from zoo.training.task import images as examples_of

__all__ = [
    "MovingAverage",
    "Record",
    "StopSignals",
    "Task",
    "affordable",
    "batches",
    "examples_of",
    "latest_checkpoint",
    "make_task",
    "parse_duration",
    "random_state",
    "recompute_blocks",
    "report",
    "restore_random_state",
    "seed_all",
    "shortened",
    "start_from",
    "write_checkpoint",
]
