"""Finds code for the processor in engine files, which opening them would run.

TensorRT-RTX 1.7 loads a library in an engine, and runs its code, even where the runtime does not
allow it (``engine_host_code_allowed``). What the JSON file beside an engine says of it proves
nothing. So the file itself is searched.
"""

from __future__ import annotations

import re
from typing import Literal

ELF = re.compile(rb"\x7fELF[\x01\x02][\x01\x02]\x01")
"""Start of a library of Linux: magic, word size, order of bytes, version of the format."""

PE = re.compile(rb"MZ")
"""Start of a library of Windows."""

CUDA = 190
"""Machine of ELF files with code for GPUs, which engines do contain."""


def holds_library(content: bytes) -> bool:
    """Whether an engine contains a library for a processor, of Linux (ELF) or Windows (PE)."""
    for found in ELF.finditer(content):
        order: Literal["little", "big"] = "little" if found[0][5] == 1 else "big"
        machine = content[found.start() + 18 : found.start() + 20]
        if int.from_bytes(machine, order) != CUDA:
            return True
    for found in PE.finditer(content):
        place = content[found.start() + 60 : found.start() + 64]
        header = found.start() + int.from_bytes(place, "little")
        if content[header : header + 4] == b"PE\0\0":
            return True
    return False
