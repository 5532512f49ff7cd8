"""What is no weights file but may hold one: archives, programs, pickles of Python."""

from __future__ import annotations

import gzip
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch

import zoo
from zoo.errors import CheckpointError

STATE = {"conv.weight": torch.ones(2, 2)}


def zipped(path, name="models/light_x4.pth"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"weights")


def tarred(path):
    path.with_suffix(".bin").write_bytes(b"weights")
    with tarfile.open(path, "w") as archive:
        archive.add(path.with_suffix(".bin"), "light_x4.pth")


def gzipped(path):
    path.write_bytes(gzip.compress(b"weights" * 99))


def scripted(path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), str(path))


MADE = {
    "a zip archive that holds 'models/light_x4.pth': unpack it": zipped,
    "a zip archive without weights that PyTorch has written": lambda p: zipped(p, "a.txt"),
    "a tar archive: unpack it": tarred,
    "compressed with gzip: unpack it": gzipped,
    "compressed with xz": lambda path: path.write_bytes(b"\xfd7zXZ\x00" + bytes(99)),
    r"a TorchScript program, .*save the state_dict\(\)": scripted,
    "an archive of NumPy arrays: .*torch.from_numpy": lambda path: np.savez(
        path.open("wb"), weight=np.ones(3)
    ),
    "a pickle of Python, not of PyTorch": lambda path: path.write_bytes(pickle.dumps({"a": [1.5]})),
    "holds NumPy arrays in place of tensors; .*torch.from_numpy": lambda path: torch.save(
        {"conv.weight": np.ones(3)}, path
    ),
}


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("suffix", [".pth", ".bin2"])
@pytest.mark.parametrize("message", MADE)
def test_it_is_said_what_a_file_is(message, suffix, tmp_path, recwarn):
    path = tmp_path / f"x{suffix}"
    MADE[message](path)
    recwarn.clear()
    with pytest.raises(CheckpointError, match=message) as error:
        zoo.detect(path)
    assert "\n" not in str(error.value) and not recwarn.list


@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_pytorch_are_no_archives(legacy, tmp_path):
    torch.save(STATE, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match="are not recognised"):
        zoo.detect(tmp_path / "x.pth")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="the file is a pipe or a device"):
        zoo.detect(tmp_path / "w.pth")
