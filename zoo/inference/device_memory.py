"""How much memory a device has left, and how much a function takes: of GPUs, and of this machine.

On Linux, a container may use less memory than the machine has. Its limit is found in the control
groups (cgroups) of the process, of version 1 or 2, and in all groups around them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Protocol

import torch

from zoo.inference.graphs import forget
from zoo.inference.kept import give_back
from zoo.networks import Network
from zoo.ops.passes.workspace import drop_workspace


class DeviceMemory(Protocol):
    """Memory of a device, in bytes.

    Attributes:
        share: fraction of the free memory that tiles may use.
        has_results: whether restored images take memory of the device, too.
    """

    share: float
    has_results: bool

    def free(self) -> int:
        """Return how much can still be allocated."""
        ...

    def is_scarce(self) -> bool:
        """Return whether even a tile of the default size may be too large."""
        ...

    def peak(self, function: Callable[[], object]) -> int:
        """Run ``function`` and return its peak memory, without what was allocated before."""
        ...

    def release(self) -> None:
        """Return cached memory to the device."""
        ...


class CudaMemory:
    """Memory of an NVIDIA GPU, as the driver and PyTorch's allocator report it."""

    share = 0.8  # the rest allows for memory fragmentation
    has_results = False

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def free(self) -> int:
        if forget():  # what recordings keep is not free for other runs
            self.release()
        cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return int(torch.cuda.mem_get_info(self.device)[0] + cached)

    def is_scarce(self) -> bool:
        return False  # a tile that does not fit is an error here, and halved

    def peak(self, function: Callable[[], object]) -> int:
        held = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        function()
        return int(torch.cuda.max_memory_allocated(self.device) - held)

    def release(self) -> None:
        torch.cuda.empty_cache()


class CpuMemory:
    """Memory of this machine that this process may use, as Linux reports it."""

    share = 0.5  # beyond it Linux ends processes; other programs and files need some, too
    has_results = True

    def free(self) -> int:
        self.release()
        return free_bytes()

    def is_scarce(self) -> bool:
        return free_bytes() < _PLENTY

    def peak(self, function: Callable[[], object]) -> int:
        self.release()
        _RESET.write_text(_PEAK)
        held = _status("VmRSS")
        function()
        return max(0, _status("VmHWM") - held)

    def release(self) -> None:
        drop_workspace()  # a small tile would find room there that a large one does not
        give_back()

    @staticmethod
    @cache
    def is_known() -> bool:
        """Return whether the system tells what is free, and the peak of this process."""
        try:
            _RESET.write_text(_PEAK)
            return free_bytes() > 0 and _status("VmHWM") > 0
        except (OSError, ValueError):
            return False


_PLENTY = 2**33
"""Free memory that suffices for a tile of the default size in any network of the package."""

_RESET, _PEAK = Path("/proc/self/clear_refs"), "5"
"""Writing this number to this file sets the peak of a process to what it uses now."""

_MOUNT = Path("/sys/fs/cgroup")

_NO_LIMIT = 2**60
"""Version 1 writes the largest number that it knows where there is no limit."""


def memory_of(network: Network) -> DeviceMemory | None:
    """Return the memory of a network's device, or None if what is free there is unknown.

    That of a runtime other than PyTorch is: it keeps what it has taken, and does not tell.
    """
    device = next(network.parameters()).device
    if device.type == "cuda":
        return CudaMemory(device)
    known = device.type == "cpu" and network.runs_in_torch and CpuMemory.is_known()
    return CpuMemory() if known else None


def free_bytes() -> int:
    """Return how much memory this process can still take, by the machine and by its cgroups.

    Raises:
        OSError, ValueError: where the system does not tell.
    """
    machine = _field(Path("/proc/meminfo").read_text(), "MemAvailable")
    return max(0, min([machine, *_left_in_groups(Path("/proc/self/cgroup").read_text(), _MOUNT)]))


def _left_in_groups(groups: str, mount: Path) -> Iterator[int]:
    """Yield what the limits of the cgroups of this process leave.

    Args:
        groups: the content of ``/proc/self/cgroup``.
        mount: the folder in which cgroups are.
    """
    for line in groups.splitlines():
        _, kinds, inside = line.split(":", 2)
        if kinds == "":
            top, names = mount, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in kinds.split(","):
            top, names = mount / "memory", (
                *("memory.limit_in_bytes", "memory.usage_in_bytes"),
                "total_inactive_file",
            )  # fmt: skip
        else:
            continue
        folder = top / inside.lstrip("/")
        # In a container, the folders of outer groups are not there, and its own is the top.
        for here in (folder, *folder.parents):
            if here.is_relative_to(top):
                yield from _left(here, *names)


def _left(group: Path, limit: str, usage: str, idle: str) -> Iterator[int]:
    """Yield what a cgroup's limit leaves; nothing where it has none.

    Files that were read are in memory, too, and leave it when it is needed.
    """
    try:
        most = int((group / limit).read_text())  # "max", which is no number, is no limit
        if most < _NO_LIMIT:
            used = int((group / usage).read_text())
            yield most - used + _of_stat((group / "memory.stat").read_text(), idle)
    except (OSError, ValueError):
        return


def _of_stat(stat: str, name: str) -> int:
    found = dict(line.split(" ", 1) for line in stat.splitlines() if " " in line)
    return int(found.get(name, 0))


def _status(name: str) -> int:
    return _field(Path("/proc/self/status").read_text(), name)


def _field(text: str, name: str) -> int:
    """Return a field such as ``VmRSS:  2208 kB`` in bytes.

    Raises:
        ValueError: if it is missing.
    """
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return 1024 * int(value.split()[0])
    raise ValueError(f"{name} is missing")


__all__ = ["CpuMemory", "CudaMemory", "DeviceMemory", "free_bytes", "memory_of"]
