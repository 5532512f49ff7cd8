"""Names of the cases of a parametrised test."""

from __future__ import annotations


def case_name(value: object) -> str:
    """``str(value)``, and of a function its name, which is the same in every process."""
    return str(value.__name__ if callable(value) else value)[:40]
