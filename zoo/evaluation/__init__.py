"""How well a network restores images and bursts whose clean version is known."""

from zoo.evaluation.image import (
    Protocol,
    Restored,
    Run,
    Score,
    evaluate,
    mean_score,
    restore_clean,
    score,
    strip,
    whole,
)

__all__ = [
    "Protocol",
    "Restored",
    "Run",
    "Score",
    "evaluate",
    "mean_score",
    "restore_clean",
    "score",
    "strip",
    "whole",
]
