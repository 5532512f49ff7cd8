"""A machine of which ``zoo doctor`` has nothing to say, and headers of its libraries."""

from __future__ import annotations

import torch

from zoo.commands import doctor, gpu_advice
from zoo.ops.scan import mamba_ssm, native, triton


def elf_header(machine):
    """The start of a library of Linux for a processor, by its number in the ELF standard."""
    return b"\x7fELF\x02\x01".ljust(18, b"\0") + machine.to_bytes(2, "little") + bytes(44)


def healthy(monkeypatch):
    """A machine with nothing to say about; each test changes one thing."""
    monkeypatch.delenv("ZOO_SCAN_BACKEND", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None, raising=False)
    monkeypatch.setattr(native, "unavailable", lambda: None)
    monkeypatch.setattr(doctor, "bfloat16_is_slow", lambda device: False)
    monkeypatch.setattr(gpu_advice, "nvidia_driver", lambda: None)
    for backend in (triton, mamba_ssm):
        monkeypatch.setattr(backend, "unavailable", lambda: "it is not here")
    return monkeypatch
