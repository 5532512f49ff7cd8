"""Memory that is free and that is taken: of this machine, in a container, between two layers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import zoo
from tests.helpers.networks import Nearest
from zoo.inference import RestoreSettings, device_memory, kept, restore_tensor, runner
from zoo.inference.device_memory import CpuMemory, CudaMemory, free_bytes, memory_of
from zoo.inference.tiling import fitting_overlap, fitting_tile
from zoo.integrations.exported import ExportedNetwork
from zoo.networks import Network
from zoo.ops import use_backend
from zoo.ops.passes.workspace import workspace
from zoo.registry import Capabilities

MIB = 2**20

linux = pytest.mark.skipif(not CpuMemory.is_known(), reason="the system does not tell its memory")


def group(folder, limit, used, idle, version):
    """A cgroup's files."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 7\n{names[2]} {idle}\nactive_file 9\n")


def left(groups, mount):
    return sorted(device_memory._left_in_groups(groups, mount))


@pytest.mark.parametrize("version", [1, 2])
def test_every_group_around_a_process_limits_it(version, tmp_path):
    top = tmp_path / "memory" if version == 1 else tmp_path
    line = "9:cpu,memory:/a/b\n8:pids:/x\n" if version == 1 else "0::/a/b\n"
    unlimited = 2**63 - 4096 if version == 1 else "max"
    group(top / "a" / "b", 1000, 600, 50, version)
    group(top / "a", 5000, 4800, 0, version)
    group(top, unlimited, 10, 0, version)
    assert left(line, tmp_path) == [200, 450]


@pytest.mark.parametrize("version", [1, 2])
def test_in_a_container_the_folder_of_its_group_is_the_top(version, tmp_path):
    line = "4:memory:/docker/1f\n" if version == 1 else "0::/docker/1f\n"
    group(tmp_path / "memory" if version == 1 else tmp_path, 700, 300, 100, version)
    assert left(line, tmp_path) == [500]


def test_groups_without_limits_and_broken_files_limit_nothing(tmp_path):
    assert left("0::/gone\n1:name=systemd:/\n", tmp_path) == []
    group(tmp_path, "max", 5, 0, 2)
    group(tmp_path / "b", 100, "?", 0, 2)
    assert left("0::/b\n", tmp_path) == []


def test_a_limit_around_the_groups_of_others_is_not_ours(tmp_path):
    group(tmp_path / "mount", 1000, 0, 0, 2)
    group(tmp_path, 10, 0, 0, 2)
    assert left("0::/a\n", tmp_path / "mount") == [1000]


@linux
def test_the_least_of_machine_and_groups_is_free(monkeypatch):
    available = free_bytes()
    monkeypatch.setattr(
        device_memory, "_left_in_groups", lambda *_: [available // 2, 3 * available]
    )
    assert free_bytes() == available // 2
    monkeypatch.setattr(device_memory, "_left_in_groups", lambda *_: [-5])
    assert free_bytes() == 0
    monkeypatch.setattr(device_memory, "_left_in_groups", lambda *_: [])
    told = Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0]
    assert free_bytes() == pytest.approx(1024 * int(told), rel=0.2)


@linux
def test_the_peak_of_a_function_is_what_it_takes_beside_what_is_there():
    memory = CpuMemory()
    held = torch.ones(20 * MIB)
    with kept.kept_memory():
        torch.ones(60 * MIB // 4)  # kept, which hides what is taken again

        def work():
            first = torch.ones(50 * MIB // 4)
            del first
            torch.ones(40 * MIB // 4)

        assert 50 * MIB <= memory.peak(work) < 60 * MIB
        assert memory.peak(lambda: None) < 2 * MIB
    assert held[0] == 1


@linux
def test_memory_that_is_kept_counts_as_free(monkeypatch):
    released = []
    monkeypatch.setattr(device_memory, "give_back", lambda: released.append(True))
    assert CpuMemory().free() > 0 and released == [True]


@pytest.mark.parametrize(("free", "scarce"), [(2**33 - 1, True), (2**33, False)])
def test_memory_is_scarce_where_a_default_tile_might_not_fit(free, scarce, monkeypatch):
    monkeypatch.setattr(device_memory, "free_bytes", lambda: free)
    assert CpuMemory().is_scarce() is scarce
    assert CudaMemory(torch.device("cuda")).is_scarce() is False


def test_what_memory_is_known_of(monkeypatch, tmp_path):
    network = Nearest()
    monkeypatch.setattr(CpuMemory, "is_known", staticmethod(lambda: True))
    assert type(memory_of(network)) is CpuMemory
    network.runs_in_torch = False
    assert memory_of(network) is None
    for kind, expected in (("cuda", CudaMemory), ("mps", type(None))):
        parameter = SimpleNamespace(device=torch.device(kind))
        fake = SimpleNamespace(parameters=lambda p=parameter: iter([p]), runs_in_torch=True)
        assert type(memory_of(fake)) is expected
    assert Network.runs_in_torch and not ExportedNetwork.runs_in_torch


@pytest.mark.parametrize("missing", ["_RESET", "meminfo"])
def test_where_the_system_does_not_tell_memory_is_unknown(missing, monkeypatch, tmp_path):
    if missing == "_RESET":  # as without /proc, or where it may not be written
        monkeypatch.setattr(device_memory, "_RESET", tmp_path / "gone" / "clear_refs")
    else:
        monkeypatch.setattr(device_memory, "free_bytes", lambda: int("no number"))
    CpuMemory.is_known.cache_clear()
    assert not CpuMemory.is_known()
    CpuMemory.is_known.cache_clear()


class Fixed:
    """Memory of a machine with half a gigabyte, in which a pixel takes 1000 bytes."""

    share, has_results = 0.5, True

    def __init__(self, free):
        self.bytes_free, self.measured = free, 0

    def free(self):
        return self.bytes_free

    def is_scarce(self):
        return True

    def peak(self, function):
        self.measured += 1
        return 1000 * function().shape[-2] * function().shape[-1]

    def release(self): ...


def test_results_take_their_part_of_free_memory():
    """Half of 2.4 MB is 1.2 MB, less 4 bytes a pixel of 300 x 200."""
    image = torch.zeros(1, 1, 300, 200)
    assert fitting_tile(lambda tile: tile, image, 16, Fixed(2.4e6)) == 128  # the probe
    assert fitting_tile(lambda tile: tile, image, 16, Fixed(2 * 60000 * 1000 + 479_990)) == 192
    assert fitting_tile(lambda tile: tile, image, 16, Fixed(2 * 60000 * 1000 + 480_000)) == 0


def test_an_image_of_the_size_of_the_probe_is_not_measured():
    memory = Fixed(1)
    assert fitting_tile(lambda tile: tile, torch.zeros(1, 1, 256, 64), 16, memory) == 0
    assert memory.measured == 0
    assert fitting_tile(lambda tile: tile, torch.zeros(1, 1, 257, 64), 16, memory) == 128


def test_the_memory_of_a_network_is_measured_once_for_each_way_to_run_it(monkeypatch):
    network, memory = Nearest(), Fixed(1e6)
    monkeypatch.setattr(runner, "memory_of", lambda network: memory)
    image = torch.rand(1, 3, 200, 180)
    for _ in range(2):
        found = restore_tensor(network, image)
        torch.testing.assert_close(found, Nearest()(image).clamp(0, 1))
    assert memory.measured == 1
    restore_tensor(network, image, RestoreSettings(ensemble=True))
    restore_tensor(network, image.expand(2, -1, -1, -1))
    assert memory.measured == 3
    restore_tensor(Nearest(), image)
    assert memory.measured == 4
    with use_backend("chunked"):  # which needs more
        restore_tensor(network, image)
    assert memory.measured == 5
    monkeypatch.setenv("ZOO_CPU_PASSES", "0")  # without them, too
    for _ in range(2):
        restore_tensor(network, image)
    assert memory.measured == 6
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)  # each has its own scratch memory
    restore_tensor(network, image)
    assert memory.measured == 7


def test_what_passes_keep_is_measured_too():
    kept = workspace(1 << 16)
    assert workspace(1) is kept
    CpuMemory().release()
    assert workspace(1).numel() == 1


@pytest.mark.parametrize(
    ("model", "overlap"),
    [("mambair_tiny_x2", 16), ("mair_light_t_x4", 24), ("mambair_light_x4", 32),
     ("mambacsr_tiny_x2", 24), ("qmambabsr_tiny", 32), ("dvmsr_x4", 16)],
)  # fmt: skip
def test_tiles_overlap_as_far_as_convolutions_reach(model, overlap):
    assert fitting_overlap(zoo.build(model)) == overlap


def test_the_overlap_is_that_of_the_reach_or_of_a_cell_in_its_bounds():
    network = Nearest()
    assert fitting_overlap(network) == 16
    network.layers = torch.nn.Sequential(*[torch.nn.Conv2d(1, 1, 3) for _ in range(24)])
    assert fitting_overlap(network) == 16  # 4 * sqrt(24 * 8 / 12) is 16
    network.layers.append(torch.nn.Conv2d(1, 1, 3))
    assert fitting_overlap(network) == 24
    network.layers = torch.nn.Conv2d(1, 1, 1)
    for grid, overlap in ((16, 16), (24, 24), (64, 32)):
        network.capabilities = Capabilities(size_multiple=grid)
        assert fitting_overlap(network) == overlap
    network.capabilities = Capabilities()
    network.runs_in_torch = False
    assert fitting_overlap(network) == 32


def test_tiles_that_are_asked_for_overlap_by_half_at_most():
    network = Nearest()
    restore_tensor(network, torch.rand(1, 3, 30, 8), RestoreSettings(tile=20))
    assert network.sizes == [(20, 8)] * 2  # by 10
    network.sizes.clear()
    restore_tensor(network, torch.rand(1, 3, 80, 8), RestoreSettings(tile=50))
    assert network.sizes == [(48, 8)] * 2  # by 16


KEPT = """
import resource, torch
from zoo.inference.kept import give_back, kept_memory
def held():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20
def take():
    torch.ones(100 << 18)
take()
before = held()
with kept_memory():
    with kept_memory():
        take()
    inside = held()
    give_back()
    given = held()
    take()
print(inside - before, given - before, held() - before)
take()
print(held() - before)
"""


@linux
@pytest.mark.parametrize("chosen", [{}, {"MALLOC_TRIM_THRESHOLD_": "131072"}])
def test_memory_stays_with_the_process_in_the_block_and_goes_back_after_it(chosen, monkeypatch):
    for name in kept._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    told = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True, check=True)
    inside, *after = map(int, told.stdout.split())
    assert (abs(inside) < 10) if chosen else (inside > 90)
    assert all(abs(each) < 10 for each in after)


def test_memory_is_kept_for_large_images_on_the_cpu_alone(monkeypatch):
    entered = []

    class Kept:
        def __enter__(self):
            entered.append(True)

        def __exit__(self, *error): ...

    monkeypatch.setattr(runner, "kept_memory", Kept)
    network = Nearest()
    restore_tensor(network, torch.rand(1, 3, 128, 255))
    assert not entered
    restore_tensor(network, torch.rand(1, 3, 128, 256))
    assert entered == [True]
    network.runs_in_torch = False
    restore_tensor(network, torch.rand(1, 3, 128, 256))
    assert entered == [True]


def test_the_settings_of_the_c_library_are_set_once_and_set_back_at_the_end(monkeypatch):
    class Library:
        def __init__(self):
            self.calls = []

        def mallopt(self, number, value):
            self.calls.append((number, value))

        def malloc_trim(self, pad):
            self.calls.append("given back")

    library = Library()
    monkeypatch.setattr(kept, "_library", lambda: library)
    with pytest.raises(KeyError), kept.kept_memory():
        with kept.kept_memory():
            pass
        assert library.calls == [(-4, 0), (-1, -1)]  # M_MMAP_MAX, M_TRIM_THRESHOLD
        raise KeyError
    assert library.calls[2:] == [(-4, 65536), (-3, 2**25), (-1, 2**26), "given back"]
