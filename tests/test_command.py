"""What every command has in common: exit codes, one-line errors, sizes, parts of others."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from zoo import command
from zoo.command import import_parts, parse_size, run_command
from zoo.errors import RecipeError, WriteError, ZooError
from zoo.ops.scan import BackendError
from zoo.registry import kind


def run(work, *words):
    return run_command(argparse.ArgumentParser(prog="python -m a.b"), work, list(words))


def failing(error):
    def work(options):
        raise error

    return work


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (3, 3)])
def test_the_exit_code_is_what_the_work_says(result, code):
    assert run(lambda options: result) == code


@pytest.mark.parametrize(
    "error",
    [
        ZooError("broken"), RecipeError("broken"), WriteError("broken"), OSError("broken"),
        FileNotFoundError("broken"), BackendError("broken"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_what_the_user_can_mend_is_one_line_on_standard_error_and_code_2(error, capsys):
    assert run(failing(error)) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "a.b: error: broken\n")
    with pytest.raises(type(error)):
        run(failing(error), "--debug")


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("x"), RuntimeError("x")])
def test_a_defect_of_the_package_is_never_hidden(error):
    with pytest.raises(type(error)):
        run(failing(error))


def test_ctrl_c_is_code_130_and_bad_usage_code_2():
    assert run(failing(KeyboardInterrupt())) == 130
    with pytest.raises(SystemExit) as stop:
        run(lambda options: None, "--nothing")
    assert stop.value.code == 2


def test_sizes_are_height_times_width_from_1():
    assert parse_size("16x24", "pixels") == (16, 24)
    for text in ("16", "x24", "16x", "0x24", "16x0", "-1x3", "1.5x2", "16x24x3"):
        with pytest.raises(ZooError, match="write height x width in pixels, such as 16x24"):
            parse_size(text, "pixels")


PART = """
import zoo
from zoo.scans import Raster
@zoo.register("scan", "here")
class Mine(Raster): ...
"""


def test_parts_are_imported_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "my_scan_here.py").write_text(PART)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))

    def work(options):
        return 0 if "here" in kind("scan").names() else 7

    assert run(work) == 7
    assert run(work, "--import", "my_scan_here") == 0


def test_installed_packages_announce_parts_and_a_broken_one_is_named(monkeypatch):
    loaded = []
    entry = SimpleNamespace(load=lambda: loaded.append("it"), value="their.parts", dist=None)

    def announced(group):
        assert group == "zoo.parts"
        return [entry]

    monkeypatch.setattr(command, "entry_points", announced)
    import_parts([])
    assert loaded == ["it"]
    for error in (ImportError("gone"), AttributeError("gone")):
        entry.load = lambda error=error: failing(error)(None)
        with pytest.raises(ZooError, match=r"an installed package lists parts in 'their\.parts'"):
            import_parts([])


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(ZooError, match=r"--import nowhere\.at_all: no module 'nowhere'"):
        import_parts(["nowhere.at_all"])
    assert str(Path.cwd()) in sys.path
