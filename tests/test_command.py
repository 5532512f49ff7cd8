"""What every command has in common: exit codes, one-line errors, sizes, parts of others."""

from __future__ import annotations

import argparse
import logging
import pickle
import re
import sys
from types import SimpleNamespace

import pytest

from zoo import command
from zoo.command import import_parts, parse_size, run_command, whole
from zoo.errors import (
    RecipeError,
    ToldElsewhereError,
    WriteError,
    ZooError,
    nearest,
    no_effect_is_told,
    reason_of,
    refuse_no_effect,
    shown,
)
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
    assert (said.out, said.err) == ("", "python -m a.b: error: broken\n")
    with pytest.raises(type(error)):
        run(failing(error), "--debug")


def test_what_another_process_tells_is_not_printed_again(capsys):
    assert run(failing(ToldElsewhereError("no such file"))) == 2
    assert capsys.readouterr() == ("", "")


def test_what_is_logged_is_printed_alone_but_for_the_requests_of_other_packages(capsys):
    def work(options):
        logging.getLogger("zoo.x").debug("a detail")
        logging.getLogger("zoo.x").info("it goes on")
        for client in ("httpx", "httpx2"):
            logging.getLogger(client).info("a request")
            logging.getLogger(client).warning("%s warns", client)

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        root.handlers[:] = []  # those of pytest
        root.setLevel(logging.WARNING)
        assert run(work) == 0
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    assert capsys.readouterr().err == "it goes on\nhttpx warns\nhttpx2 warns\n"


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("x"), RuntimeError("x")])
def test_a_defect_of_the_package_is_never_hidden(error):
    with pytest.raises(type(error)):
        run(failing(error))


def test_ctrl_c_is_code_130_and_bad_usage_code_2(capsys):
    assert run(failing(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted\n"
    with pytest.raises(SystemExit) as stop:
        run(lambda options: None, "--nothing")
    assert stop.value.code == 2
    assert "python -m a.b: error: unrecognized" in capsys.readouterr().err


def test_errors_of_the_system_are_path_and_reason(tmp_path, capsys):
    missing = tmp_path / "missing"
    assert run(lambda options: missing.open()) == 2
    assert (
        capsys.readouterr().err == f"python -m a.b: error: {missing}: No such file or directory\n"
    )
    assert run(failing(OSError(28, "No space left on device"))) == 2
    assert capsys.readouterr().err == "python -m a.b: error: No space left on device\n"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("Error Code 2: Out of Memory (no further information)"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_too_little_memory_is_one_line_and_code_2(error, capsys):
    assert run(failing(error)) == 2
    assert re.fullmatch(
        r"python -m a\.b: error: memory ran out \(.*\); close .*\n", capsys.readouterr().err
    )
    assert run(failing(ZooError("the GPU is out of memory; sell it"))) == 2
    assert capsys.readouterr().err.endswith("error: the GPU is out of memory; sell it\n")


def test_values_of_files_are_shown_in_a_line_at_most():
    def parts(length):
        return ["x" * 40, "y" * 40, "z" * length]

    assert shown(parts(68)) == repr(parts(68)) and len(shown(parts(68))) == 160
    assert shown(parts(69)) == repr(parts(69))[:157] + "..."
    assert shown("x" * 10**6).startswith("'xxx") and len(shown("x" * 10**6)) == 80
    assert shown([[[[1]]]]) == "[[[[...]]]]"
    assert shown(10**5000) == "a number of thousands of digits"


def test_what_other_code_says_is_one_short_line():
    assert reason_of(ValueError("two\n lines ")) == "two lines"
    assert reason_of(ValueError()) == reason_of(ValueError(), kind=True) == "ValueError"
    assert reason_of(KeyError("a"), kind=True) == "KeyError: 'a'"
    words = "word " * 50
    assert reason_of(OSError(words)) == words[:160]
    assert reason_of(OSError(words), kind=True) == f"OSError: {words}"[:160]


def test_twelve_known_names_are_told_at_most():
    names = [f"known{number:02}" for number in range(13)]
    assert nearest("x", names[:12]) == f"; known: {', '.join(names[:12])}"
    assert nearest("x", names) == f"; known: {', '.join(names[:12])}, ..."


def test_one_near_name_is_told_unless_more_are_asked_for():
    assert nearest("blok", ["block", "blocks"]) == "; did you mean 'block'?"
    assert nearest("blok", ["block", "blocks"], 2) == "; did you mean 'block' or 'blocks'?"


def test_words_that_only_the_known_name_has_make_it_less_near():
    names = ["mambair_light_x2_photo_old", "light_x2"]
    assert nearest("light_x2_old", names) == "; did you mean 'light_x2'?"


def test_names_of_any_length_are_compared_by_all_their_letters():
    """A name of 200 characters has none that counts as frequent, and so as no evidence."""
    assert nearest("ab" * 150, ["ab" * 99]) == f"; did you mean {'ab' * 99!r}?"
    assert nearest("abcvw", ["abcxy"]) == "; did you mean 'abcxy'?"  # 0.6 alike
    assert nearest("abvwz", ["abcxy"]) == "; known: abcxy"
    assert nearest("x", []) == "; there are none"


def test_a_message_loses_its_middle_only_if_it_is_too_long():
    fits = "s" * 240 + "e" * 240
    assert str(ZooError(fits)) == fits
    assert str(ZooError(f"{fits}e")) == "s" * 240 + " ... " + "e" * 235
    assert str(ZooError("first \n  second\x07")) == r"first second\x07"


def test_options_without_effect_are_told_once_within_the_block_only(caplog):
    with no_effect_is_told():
        for _ in range(2):
            refuse_no_effect("it has no effect")
        refuse_no_effect("nor has that")
    assert caplog.messages == ["it has no effect", "nor has that"]
    with pytest.raises(RecipeError, match="it has no effect"):
        refuse_no_effect("it has no effect")


def test_clients_that_log_every_request_are_quiet():
    clients = [logging.getLogger(name) for name in ("httpx", "httpx2")]
    before = [client.level for client in clients]
    try:
        for client in clients:
            client.setLevel(logging.NOTSET)
        assert run(lambda options: None) == 0
        assert [client.level for client in clients] == [logging.WARNING] * 2
    finally:
        for client, level in zip(clients, before, strict=True):
            client.setLevel(level)


def test_whole_numbers_are_in_their_range():
    parse = whole("--tile", 0, 9)
    assert [parse(text) for text in ("0", "9", "+3", "-0", "007")] == [0, 9, 3, 0, 7]
    for text in ("-1", "10", "1.0", "", "x", "1 0", "٣", "²", "9" * 5000, "nan"):
        with pytest.raises(ZooError, match=r"^--tile .*: give a whole number from 0 to 9$"):
            parse(text)
    assert whole("--tile", 1)("2147483647") == 2**31 - 1
    with pytest.raises(ZooError, match=r"^--tile 0: give a whole number of at least 1$"):
        whole("--tile", 1)("0")
    with pytest.raises(ZooError, match="of at least 1"):
        whole("--tile", 1)("2147483648")


def test_a_closed_pipe_is_quiet(capsys):
    assert run(failing(BrokenPipeError(32, "Broken pipe"))) == 141
    assert capsys.readouterr().err == ""
    with pytest.raises(BrokenPipeError):
        run(failing(BrokenPipeError(32, "Broken pipe")), "--debug")


def test_sizes_are_height_times_width_from_1():
    assert parse_size("16x24", "pixels") == (16, 24)
    for text in ("16", "x24", "16x", "0x24", "16x0", "-1x3", "1.5x2", "16x24x3", "²x4", "٣x4"):
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


def test_parts_reach_other_processes_with_what_is_sent_there(tmp_path, monkeypatch):
    (tmp_path / "part_of_mine.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.setattr(command, "_imported", [])
    import_parts(["part_of_mine", "part_of_mine"])
    assert command._imported == ["part_of_mine"]
    sent = pickle.dumps(command.ImportedParts())
    command._imported.clear()
    del sys.modules["part_of_mine"]
    assert isinstance(pickle.loads(sent), command.ImportedParts)
    assert "part_of_mine" in sys.modules and command._imported == ["part_of_mine"]


@pytest.mark.parametrize("text", ["", "import sys\nsys.path.pop()"])
def test_an_import_leaves_the_path_as_it_was(text, tmp_path, monkeypatch):
    (tmp_path / "tidy_part.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.setattr("zoo.command._imported", [])
    before = list(sys.path)
    import_parts(["tidy_part"])
    assert sys.path == before


def test_installed_packages_announce_parts_and_a_broken_one_is_named(monkeypatch):
    loaded = []
    entry = SimpleNamespace(load=lambda: loaded.append("it"), value="their.parts", dist=None)

    def announced(group):
        assert group == "zoo.parts"
        return [entry]

    monkeypatch.setattr(command, "entry_points", announced)
    import_parts([])
    assert loaded == ["it"]
    for error in (
        ImportError("gone"),
        AttributeError("gone"),
        ValueError("gone"),
        SystemExit(1),
        BaseException("gone"),
    ):
        entry.load = lambda error=error: failing(error)(None)
        message = (
            r"an installed package lists parts in 'their\.parts', .*: \w+: (gone|1) \(.*:\d+\)"
        )
        with pytest.raises(ZooError, match=message):
            import_parts([])


def test_ctrl_c_during_an_import_is_no_error_of_the_module(tmp_path, monkeypatch):
    (tmp_path / "slow_to_load.py").write_text("raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        import_parts(["slow_to_load"])


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(ZooError, match=r"--import nowhere\.at_all: no module 'nowhere'"):
        import_parts(["nowhere.at_all"])


@pytest.mark.parametrize("name", ["", ".", ".x"])
def test_a_module_needs_a_full_name(name):
    with pytest.raises(ZooError, match=rf"--import '{re.escape(name)}': give the name, without"):
        import_parts([name])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\nx = = 1\n", "SyntaxError: invalid syntax (FILE:2)"),
        ("raise ImportError('bad')\n", "ImportError: bad (FILE:1)"),
        ("\nraise ValueError('two\\nlines')\n", "ValueError: two lines (FILE:2)"),
        ("assert 0", "AssertionError (FILE:1)"),
        ("raise BaseException('x')", "BaseException: x (FILE:1)"),
        ("raise GeneratorExit", "GeneratorExit (FILE:1)"),
        (
            "class Mute(Exception):\n    def __str__(self):\n        raise OSError\nraise Mute",
            "Mute (FILE:4)",
        ),
        ("import sys\nsys.exit(3)", "SystemExit: 3 (FILE:2)"),
        ("import zoo\nraise zoo.errors.ZooError('bad')", "bad (FILE:2)"),
        (
            "import nomodule.at_all",
            "broken_part was found, but it needs 'nomodule', which is missing (FILE:1)",
        ),
    ],
)
def test_a_module_that_fails_is_named_with_its_line(text, message, tmp_path, monkeypatch):
    path = tmp_path / "broken_part.py"
    path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ZooError) as caught:
        import_parts(["broken_part"])
    assert str(caught.value) == "--import broken_part: " + message.replace("FILE", str(path))
