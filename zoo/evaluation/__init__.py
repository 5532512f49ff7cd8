"""Evaluating networks on images and bursts with a known clean image."""

from zoo.evaluation.image import (
    Protocol,
    Restored,
    Run,
    Score,
    evaluate,
    exact,
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
    "exact",
    "mean_score",
    "restore_clean",
    "score",
    "strip",
    "whole",
]
