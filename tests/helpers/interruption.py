"""Trainings that end with an error in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from recipes.train import Trainer


@contextmanager
def interrupted_at(step: int) -> Iterator[None]:
    """Let every training in the block fail after ``step`` steps; one must."""
    train_step = Trainer._train_step

    def failing(self, parts):
        if self.step == step:
            raise RuntimeError("out of luck")
        return train_step(self, parts)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="out of luck"):
        patch.setattr(Trainer, "_train_step", failing)
        yield
