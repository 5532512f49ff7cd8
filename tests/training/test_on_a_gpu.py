"""What training does so that a GPU need not wait, without a GPU: a trainer told that it has one."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import recipes.train
import zoo.training.loader as loader
import zoo.training.rng as rng
from recipes.train import Trainer
from tests.helpers.toy import register_toy
from tests.helpers.training import Rank, words
from zoo.errors import ZooError
from zoo.recipe import load_recipe
from zoo.training import EMA, StepValues, default_workers, make_optimizer, restore_optimizer
from zoo.training.settings import OptimizerSettings

pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument")

STEPS = 7
ADVERSARIAL = {"discriminator": {"type": "unet_spectral", "dim": 2}}


@pytest.fixture(autouse=True)
def _toy():
    register_toy()


def trainer_of(photos, folder, *, on_cuda=True, **settings):
    data = {"degradation": "bicubic", "patch": 6, "batch": 4}
    data |= {"photos": str(photos), "validate": str(photos)}
    train = {"iterations": STEPS, "save_every": STEPS, "log_every": 3, **settings, "data": data}
    recipe = load_recipe({"name": "toy", "network": {"type": "toy", "scale": 2}, "train": train})
    folder.mkdir(exist_ok=True)
    trainer = Trainer(recipe, folder, device="cpu", num_workers=0)
    trainer.on_cuda = on_cuda
    return trainer


def log_of(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{**line, "seconds": 0, "images_per_second": 0} for line in lines]


class Operators(TorchDispatchMode):
    """Notes the names of all operators that run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


READS = ("_local_scalar_dense", "equal", "nonzero", "is_nonzero")
"""Operators that make the processor wait for a GPU."""


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("adversarial", [None, ADVERSARIAL], ids=["plain", "adversarial"])
def test_a_step_reads_nothing_from_the_device(precision, adversarial, photos, tmp_path):
    trainer = trainer_of(
        photos, tmp_path, precision=precision, adversarial=adversarial, ema=0.9, clip=0.1,
        accumulate=2,
    )  # fmt: skip
    stream = trainer._batches()
    trainer._train_step(next(stream))  # builds the optimiser's state
    batch = next(stream)
    with Operators() as ran:
        found = trainer._train_step(batch)
        assert not set(ran.names) & set(READS)
        float(found[0][0])
    assert "_local_scalar_dense" in ran.names  # such a read is seen


@pytest.mark.parametrize("adversarial", [None, ADVERSARIAL], ids=["plain", "adversarial"])
def test_values_are_read_at_the_lines_of_the_log_and_equal(
    adversarial, photos, tmp_path, monkeypatch
):
    settings = {"adversarial": adversarial, "save_every": 5, "accumulate": 2}
    trainer_of(photos, tmp_path / "cpu", on_cuda=False, **settings).run()
    read_at, read = [], StepValues.read
    trainer = trainer_of(photos, tmp_path / "cuda", **settings)
    monkeypatch.setattr(StepValues, "read", lambda self: read_at.append(trainer.step) or read(self))
    trainer.run()
    assert read_at == [3, 5, 6, 7]  # a checkpoint holds the losses that are not logged yet
    assert log_of(tmp_path / "cuda") == log_of(tmp_path / "cpu")


def test_a_training_that_diverges_is_found_before_anything_is_saved(photos, tmp_path):
    trainer = trainer_of(photos, tmp_path, log_every=100)
    step = trainer._train_step

    def spoilt(parts):
        found = step(parts)
        return [[loss * float("nan")] for [loss] in found] if trainer.step == 2 else found

    trainer._train_step = spoilt
    with pytest.raises(ZooError, match="the loss is nan at step 2: training diverged"):
        trainer.run()
    assert trainer.step == STEPS and not list(tmp_path.glob("*.pt"))


def test_values_are_sums_and_means_of_the_parts_and_means_over_processes():
    class Doubling(Rank):
        def add(self, *values):
            self.given = values
            return [2 * value + 1 for value in values]

    group = Doubling(0, 2)
    values = StepValues(group)
    assert values.read() == []
    for step in (4, 5):
        parts = [[torch.tensor(0.25 * step), torch.tensor(x)] for x in (1.0, 4.0)]
        values.keep(step, parts)
    assert values.read() == [(4, [3.0, 3.5]), (5, [3.5, 3.5])]
    assert group.given == (1.0, 1.25, 1.25, 1.25)
    assert values.read() == []


def test_the_average_takes_one_launch_for_all_weights():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    ema = EMA(network, 0.75)
    before = {key: value.clone() for key, value in ema.state.items()}
    with torch.no_grad():
        for value in network.parameters():
            value.add_(1.0)
        network[1].running_mean.fill_(5.0)
    with Operators() as ran:
        ema.update(1000)
    assert [name for name in ran.names if "lerp" in name] == ["_foreach_lerp_"]
    assert ran.names.count("copy_") == 3  # the buffers of the norm
    for key, value in network.state_dict().items():
        buffer = key.startswith("1.") and key.partition(".")[2] not in ("weight", "bias")
        torch.testing.assert_close(ema.state[key], value if buffer else before[key] + 0.25)


class Weights(nn.Module):
    """Claims to have its parameters on some device."""

    def __init__(self, device):
        super().__init__()
        self.device = device

    def parameters(self, recurse=True):
        return iter([SimpleNamespace(device=torch.device(self.device))])

    def named_parameters(self, *_, **__):
        yield "weight", next(self.parameters())


@pytest.mark.parametrize(("device", "fused"), [("cuda", True), ("cpu", True), ("mps", None)])
def test_optimisers_are_fused_where_that_exists(device, fused, monkeypatch):
    made = []
    monkeypatch.setattr(torch.optim, "Adam", lambda groups, **options: made.append(options))
    make_optimizer(Weights(device), OptimizerSettings())
    assert made[0]["fused"] is fused


def test_a_state_of_another_device_does_not_undo_that(photos, tmp_path):
    trainer = trainer_of(photos, tmp_path)
    trainer._train_step(next(trainer._batches()))
    state = trainer.optimizer.state_dict()
    for group in state["param_groups"]:
        group["fused"] = None  # of an earlier version, on a GPU
    restore_optimizer(trainer.optimizer, state)
    assert all(group["fused"] is True for group in trainer.optimizer.param_groups)


@pytest.mark.parametrize("on_cuda", [False, True])
def test_batches_are_pinned_and_copied_without_waiting(on_cuda, photos, tmp_path, monkeypatch):
    trainer = trainer_of(photos, tmp_path, on_cuda=on_cuda)
    pinned, copied = [], []
    real = loader.DataLoader

    def load(*arguments, pin_memory, **options):
        pinned.append(pin_memory)
        return real(*arguments, **options)

    monkeypatch.setattr(loader, "DataLoader", load)
    batch = next(trainer._batches())

    class Noting:
        def __init__(self, tensor):
            self.tensor = tensor

        def to(self, device, non_blocking):
            copied.append(non_blocking)
            return self.tensor

    trainer._train_step([[Noting(tensor) for tensor in part] for part in batch])
    assert pinned == [on_cuda] and copied == [on_cuda] * 2


@pytest.mark.parametrize(
    ("device", "cores", "ranks", "method", "expected"),
    [
        ("cpu", 64, 1, "fork", 1),
        ("cuda", 2, 1, "fork", 1),
        ("cuda:3", 6, 1, "fork", 5),
        ("cuda", 64, 1, "fork", 8),
        ("cuda", 32, 8, "fork", 3),
        ("cuda", 4, 8, "fork", 1),
        ("cuda", 64, 1, "spawn", 2),
    ],
)
def test_a_gpu_has_several_processes_that_load_data(
    device, cores, ranks, method, expected, monkeypatch
):
    monkeypatch.setattr(loader.os, "sched_getaffinity", lambda _: range(cores), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    context = SimpleNamespace(get_start_method=lambda: method)
    monkeypatch.setattr(loader.multiprocessing, "get_context", lambda: context)
    assert default_workers(device) == expected


@pytest.mark.parametrize(("cores", "expected"), [(6, 5), (1, 1), (None, 1)])
def test_where_cores_have_no_list_they_are_counted(cores, expected, monkeypatch):
    """As on macOS and Windows."""
    monkeypatch.delattr(loader.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(loader.os, "cpu_count", lambda: cores)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    context = SimpleNamespace(get_start_method=lambda: "fork")
    monkeypatch.setattr(loader.multiprocessing, "get_context", lambda: context)
    assert default_workers("cuda") == expected


def test_what_the_user_says_about_processes_goes_first(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes.train, "default_workers", lambda device: 6)
    trainer = trainer_of(photos, tmp_path)
    assert trainer.num_workers == 0
    again = Trainer(trainer.recipe, tmp_path, device="cpu")
    assert again.num_workers == 6


class Compiled(nn.Module):
    """Stands in for what torch.compile returns."""

    def __init__(self, module):
        super().__init__()
        self.module, self.calls = module, 0

    def forward(self, *inputs):
        self.calls += 1
        return self.module(*inputs)


@pytest.fixture
def compiled(monkeypatch):
    made = []
    monkeypatch.setattr(torch, "compile", lambda m: made.append(Compiled(m)) or made[-1])
    return made


def test_steps_are_compiled_and_validations_are_not(photos, tmp_path, compiled):
    trainer = trainer_of(photos, tmp_path, compile=True, accumulate=2)
    trainer.run()
    assert [module.calls for module in compiled] == [2 * STEPS]
    assert [line["step"] for line in log_of(tmp_path) if "psnr" in line] == [STEPS]
    assert trainer.state()["network"].keys() == trainer.network.state_dict().keys()
    assert not any("_orig_mod" in key or "module." in key for key in trainer.state()["network"])


def test_steps_of_bursts_are_compiled_too(photos, tmp_path, compiled):
    data = {"photos": str(photos), "validate": str(photos), "patch": 4, "batch": 1}
    data |= {"validate_patch": 4, "validate_bursts": 1, "border": 0}
    train = {"iterations": 1, "data": data, "compile": True}
    recipe = load_recipe({"extends": "qmambabsr_tiny", "name": "burst", "train": train})
    trainer = Trainer(recipe, tmp_path, device="cpu", num_workers=0)
    trainer._train_step(next(trainer._batches()))
    assert [module.calls for module in compiled] == [1]


@pytest.fixture
def environment(monkeypatch):
    """Without what makes products deterministic; afterwards all is as before."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    yield rng.os.environ
    torch.use_deterministic_algorithms(False)


def test_equal_runs_are_asked_for_before_cuda_starts(environment, photos, tmp_path, monkeypatch):
    """cuBLAS reads its variable when it starts; afterwards the mode is off again."""
    seen = []

    def train(*_, **__):
        variable = environment["CUBLAS_WORKSPACE_CONFIG"]
        seen.append((torch.are_deterministic_algorithms_enabled(), variable))

    monkeypatch.setattr(recipes.train, "train", train)
    for option in ([], ["--deterministic"]):
        assert recipes.train.main(words(photos, tmp_path / "run", *option)) == 0
    assert seen == [(False, ""), (True, ":4096:8")]
    assert not torch.are_deterministic_algorithms_enabled()


def test_equal_runs_are_refused_where_they_cannot_be(
    environment, photos, tmp_path, monkeypatch, capsys
):
    line = words(photos, tmp_path / "run", "--deterministic")
    started = [True]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: started[0])
    assert recipes.train.main(line) == 2
    assert "CUBLAS_WORKSPACE_CONFIG=:4096:8 in the environment" in capsys.readouterr().err
    environment["CUBLAS_WORKSPACE_CONFIG"] = ":16:8"  # the user's own choice stands
    monkeypatch.setattr(recipes.train, "train", lambda *_, **__: None)
    assert recipes.train.main(line) == 0 and environment["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"

    def refused(*_, **__):
        raise RuntimeError(
            "kthvalue CUDA does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'. You can turn it off."
        )

    monkeypatch.setattr(recipes.train, "train", refused)
    assert recipes.train.main(line) == 2
    error = capsys.readouterr().err
    assert "--deterministic: kthvalue CUDA does not have" in error and "train without it" in error
    monkeypatch.setattr(recipes.train, "train", lambda *_, **__: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        recipes.train.main(line)
