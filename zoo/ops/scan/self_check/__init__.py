"""The self-check: a backend is trusted on a machine because it was measured there.

:mod:`decision` decides and is all that others need. :mod:`cases` and :mod:`comparison` say what is
computed and when it is right, :mod:`plans` which cases count, :mod:`processes` and :mod:`child` run
them, :mod:`machine` and :mod:`verdicts` keep what was found.
"""

from zoo.ops.scan.self_check.decision import (
    ENVIRONMENT,
    SelfCheckError,
    kept_verdict,
    kept_verdict_on_cpu,
    part_serves_on_cpu,
    part_serves_on_gpu,
    serves_on_cpu,
    serves_on_gpu,
    setting,
    take_over,
    tell_others,
)

__all__ = [
    "ENVIRONMENT",
    "SelfCheckError",
    "kept_verdict",
    "kept_verdict_on_cpu",
    "part_serves_on_cpu",
    "part_serves_on_gpu",
    "serves_on_cpu",
    "serves_on_gpu",
    "setting",
    "take_over",
    "tell_others",
]
