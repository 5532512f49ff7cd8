"""Processes of ``torchrun ... zoo restore --engine`` run the engine on a GPU of their own."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

import zoo.commands.restore as command
import zoo.distributed as distributed
import zoo.integrations.tensorrt as tensorrt
from zoo.cli import main
from zoo.integrations.tensorrt import EngineSession


@pytest.fixture
def current(monkeypatch):
    """Two GPUs; the numbers of the current ones, in sequence."""
    found = [0]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", found.append)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: found[-1])
    return found


@pytest.mark.parametrize("rank", [0, 1])
def test_an_engine_is_opened_on_the_gpu_of_its_process(rank, current, monkeypatch, tmp_path):
    opened = []

    class OpenedError(Exception):
        pass

    def load(*_, **__):
        opened.append(torch.cuda.current_device())
        raise OpenedError

    monkeypatch.setenv("LOCAL_RANK", str(rank))
    # There are no other processes to agree with.
    monkeypatch.setattr(distributed._TorchrunGroup, "_agree_on_backend", lambda group, device: None)
    group = distributed._TorchrunGroup(None, rank, 2)
    monkeypatch.setattr(command, "process_group", lambda: nullcontext(group))
    monkeypatch.setattr(tensorrt, "load_engine", load)
    with pytest.raises(OpenedError):
        main(["restore", "in", "-o", "out", "--engine", str(tmp_path / "a.engine")])
    assert opened == [rank]


def test_the_buffers_of_an_engine_are_on_its_gpu(current, monkeypatch, tmp_path):
    """They stay there when another GPU becomes the current one."""
    torch.cuda.set_device(1)
    streams = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: streams.append(device))
    engine = SimpleNamespace(
        num_io_tensors=2,
        get_tensor_name=["input", "output"].__getitem__,
        get_tensor_mode=lambda name: name,
        get_tensor_dtype=lambda name: "float",
        create_execution_context=lambda: "context",
    )
    api = SimpleNamespace(
        Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda _: engine),
        TensorIOMode=SimpleNamespace(INPUT="input"),
        DataType=SimpleNamespace(HALF="half", BF16="bf16"),
    )
    runtime = SimpleNamespace(api=api, logger=lambda: None)
    monkeypatch.setattr(tensorrt, "open_tensorrt", lambda name: runtime)
    path = tmp_path / "a.engine"
    path.write_bytes(b"engine")
    session = EngineSession(path, {"plugin": None, "runtime": {"name": "tensorrt"}})
    torch.cuda.set_device(0)
    mine = torch.device("cuda:1")
    assert session.device == mine and streams == [mine]
    moved = []
    tensor = SimpleNamespace(to=lambda *to: moved.append(to) or SimpleNamespace(contiguous=list))
    session._placed("input", tensor)
    assert moved == [(mine, torch.float32)]
