"""Commands import nothing from the current folder, except what ``--import`` names."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from zoo import command, startup
from zoo.command import import_parts
from zoo.errors import ZooError
from zoo.shipped import PACKAGES
from zoo.startup import leave_current_folder
from zoo.training import batching

ROOT = Path(__file__).parents[1]

TRAPS = (
    "argparse", "cv2", "json", "logging", "mamba_ssm", "numpy", "onnx", "safetensors", "tensorrt",
    "tensorboard", "torch", "tqdm", "triton", "typing", "yaml",
)  # fmt: skip
"""Names that commands import, or look for."""


@pytest.fixture
def trapped(tmp_path, monkeypatch):
    """The current folder is full of modules that say so when they run."""
    for name in TRAPS:
        (tmp_path / f"{name}.py").write_text(f"print('RAN {name}', flush=True)\n")
    evil = tmp_path / "evil-1.0.dist-info"
    evil.mkdir()
    (evil / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (evil / "entry_points.txt").write_text("[zoo.parts]\nevil = mine\n")
    (tmp_path / "mine.py").write_text("print('RAN mine', flush=True)\nimport torch, beside\n")
    (tmp_path / "beside.py").write_text("print('RAN beside', flush=True)\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def output_of(*words, **environment):
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_command_runs_no_module_of_the_current_folder_but_the_imported_ones(trapped):
    found = output_of("-m", "zoo", "doctor", "--import", "mine")
    ran = [line for line in found.splitlines() if line.startswith("RAN")]
    assert ran == ["RAN mine", "RAN beside"] and "selective-scan backends" in found


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "-m zoo list", "-m zoo.data.burst --help", "-m zoo.data.pairs --help",
        "-m zoo.data.prepare --help", "-m export.onnx --help", "-m export.trt --help",
        "-m export.serve --help", "-m trt_plugins.build --help", "-m recipes.train --help",
        "-m recipes.evaluate --help", f"{ROOT}/recipes/train.py --help",
        f"{ROOT}/recipes/evaluate.py --help",
    ],
)  # fmt: skip
def test_no_command_runs_a_module_of_the_current_folder(trapped, words):
    assert "RAN" not in output_of(*words.split())


def started(monkeypatch, argv, orig_argv, folder, **environment):
    """Return what is left of ``sys.path`` after a start in a folder."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", orig_argv)
    monkeypatch.setattr(sys, "path", [str(folder), "", "/usr/lib/python"])
    monkeypatch.setenv("PYTHONPATH", environment.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    leave_current_folder()
    return sys.path


COMMANDS = [
    (["-m", "list"], ["python", "-X", "dev", "-m", "zoo", "list"]),
    (["-m"], ["python", "-m", "zoo.data.burst"]),
    (["-m", "-n", "a"], ["python", "-mexport.onnx", "-n", "a"]),
    (["-m"], ["python", "-um", "trt_plugins.build"]),
    (["-m"], ["python", "-m", "recipes.train"]),
    (["/usr/bin/zoo", "list"], ["python", "/usr/bin/zoo", "list"]),
    ([r"/Scripts/zoo.exe"], ["python", "/Scripts/zoo.exe"]),
    ([f"{ROOT}/recipes/train.py", "a"], ["python", "recipes/train.py", "a"]),
]
OTHERS = [
    (["-m"], ["python", "-m", "mine.zoo"]),
    (["-m", "zoo"], ["python", "-m", "pytest", "zoo"]),
    (["-m"], ["python", "-m", "zoology"]),
    (["-c"], ["python", "-c", "import zoo"]),
    ([""], ["python"]),
    (["train.py"], ["python", "train.py"]),
    ([], ["python"]),
]


@pytest.mark.parametrize(("argv", "orig_argv"), COMMANDS)
def test_commands_and_their_children_do_not_look_in_the_current_folder(
    argv, orig_argv, tmp_path, monkeypatch
):
    assert started(monkeypatch, argv, orig_argv, tmp_path) == ["/usr/lib/python"]
    assert os.environ["PYTHONSAFEPATH"] == "1"


@pytest.mark.parametrize(("argv", "orig_argv"), OTHERS)
def test_programs_that_import_the_package_keep_their_folder(argv, orig_argv, tmp_path, monkeypatch):
    kept = [str(tmp_path), "", "/usr/lib/python"]
    assert started(monkeypatch, argv, orig_argv, tmp_path) == kept
    assert os.environ["PYTHONSAFEPATH"] == ""


def test_a_checkout_and_a_folder_that_the_user_names_stay(tmp_path, monkeypatch):
    command_line = COMMANDS[0]
    assert str(ROOT) in started(monkeypatch, *command_line, ROOT)
    named = f"/nowhere{os.pathsep}{tmp_path}"
    assert str(tmp_path) in started(monkeypatch, *command_line, tmp_path, PYTHONPATH=named)
    assert str(tmp_path) not in started(monkeypatch, *command_line, tmp_path, PYTHONPATH=os.pathsep)


def test_a_current_folder_that_is_gone_is_no_error(tmp_path, monkeypatch):
    def gone(path):
        raise FileNotFoundError

    monkeypatch.setattr(startup.os.path, "realpath", gone)
    monkeypatch.setattr(startup, "runs_a_command", lambda: True)
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    leave_current_folder()


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """An empty current folder that ``sys.path`` does not have, and modules as they were after."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    monkeypatch.setattr(command, "_imported", [])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_the_current_folder_is_forgotten_after_the_import(fresh):
    before = list(sys.path)
    (fresh / "good_part.py").write_text("import good_neighbour")
    (fresh / "good_neighbour.py").touch()
    import_parts(["good_part"])
    assert sys.path == before and "good_neighbour" in sys.modules
    (fresh / "bad_part.py").write_text("1 / 0")
    with pytest.raises(ZooError, match="ZeroDivisionError"):
        import_parts(["bad_part"])
    assert sys.path == before


@pytest.mark.parametrize("name", ["json", "this", "torch"])
def test_a_module_that_an_installed_one_hides_is_named(fresh, name):
    (fresh / f"{name}.py").touch()
    message = rf"--import {name}: .*{name}\.py is hidden by an installed module.*; rename"
    with pytest.raises(ZooError, match=message):
        import_parts([name])


def test_a_folder_of_files_hides_nothing_and_is_not_hidden(fresh):
    (fresh / "json").mkdir()
    import_parts(["json"])


def test_a_process_that_loads_data_imports_the_parts_before_the_examples(fresh):
    """Unpickling examples needs the modules of the user's parts."""
    (fresh / "my_examples.py").write_text("class Mine(list): ...")
    import_parts(["my_examples"])
    examples = sys.modules["my_examples"].Mine([5, 6])
    data = pickle.dumps(batching.SafeExamples(examples))
    del sys.modules["my_examples"]
    command._imported.clear()
    found = pickle.loads(data)
    assert (len(found), found[1]) == (2, 6) and command._imported == ["my_examples"]


def test_the_packages_whose_commands_are_ours_are_those_that_are_installed():
    assert startup._PACKAGES == PACKAGES


@pytest.mark.parametrize("given", [None, "0"])
def test_huge_pages_are_used_unless_the_user_says_otherwise(given):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("THP_MEM_ALLOC_ENABLE", None)
    if given is not None:
        environment["THP_MEM_ALLOC_ENABLE"] = given
    code = "import os, zoo; print(os.environ['THP_MEM_ALLOC_ENABLE'])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    assert done.stdout.decode().strip() == (given or "1")
