"""What a run writes and shows: checkpoints, the log, the bar, TensorBoard; and signals."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from zoo.errors import CheckpointError, WriteError
from zoo.training import (
    MetricsLog,
    Progress,
    StopSignals,
    latest_checkpoint,
    remove_old_checkpoints,
    write_checkpoint,
)
from zoo.training.board import MOST_PICTURES
from zoo.training.checkpoint import restoring
from zoo.training.metrics_log import read_metrics
from zoo.training.settings import (
    Stage,
)


def stage(iterations, patch, batch):
    return Stage(iterations=iterations, patch=patch, batch=batch)


def test_checkpoints_are_kept_and_found_by_step_not_by_spelling(tmp_path):
    for step in (9, 10, 100):
        write_checkpoint(tmp_path, {"step": step}, step=step)
        remove_old_checkpoints(tmp_path, step=step, keep=2)
    assert len(list(tmp_path.glob("*.pt"))) == 2
    path, state = latest_checkpoint(tmp_path)
    assert state == {"step": 100} and path.name == "checkpoint-00000100.pt"
    path.unlink()
    assert latest_checkpoint(tmp_path)[1] == {"step": 10}
    assert latest_checkpoint(tmp_path / "none") is None


def test_the_log_is_json_also_with_values_that_are_not_finite(tmp_path, monkeypatch):
    """Python writes Infinity, which other readers of JSON refuse."""
    monkeypatch.setattr("zoo.training.metrics_log.find_spec", lambda name: None)
    scores = [{"name": "a", "psnr": math.inf}, {"name": "b", "psnr": math.nan, "ssim": 0.5}]
    MetricsLog(tmp_path, 0).write(1, 0.5, psnr=-math.inf, loss=np.float64("nan"), photos=scores)

    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert found["psnr"] is None and found["loss"] is None
    assert found["photos"] == [
        {"name": "a", "psnr": None}, {"name": "b", "psnr": None, "ssim": 0.5}
    ]  # fmt: skip


def test_a_resumed_log_drops_what_comes_again_and_a_torn_line(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.training.metrics_log.find_spec", lambda name: None)
    log = MetricsLog(tmp_path, 0)
    for step in (1, 2, 3):
        log.write(step, step / 7, loss=float(step))
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 4, "lo')
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]
    MetricsLog(tmp_path, 3).write(4, 5.0, loss=4.0)
    assert [json.loads(text)["step"] for text in path.read_text().splitlines()] == [1, 2, 3, 4]
    MetricsLog(tmp_path, 2)
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    assert lines == [
        {"step": 1, "seconds": 0.1, "loss": 1.0},
        {"step": 2, "seconds": 0.3, "loss": 2.0},
    ]


def test_a_run_whose_pictures_cannot_be_written_stops_before_its_first_step(tmp_path):
    (tmp_path / "validation").write_text("a file")
    with pytest.raises(WriteError, match="validation"):
        MetricsLog(tmp_path, 0)


def test_the_log_has_steps_that_a_number_can_have_and_whole_lines(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.training.metrics_log.find_spec", lambda name: None)
    lines = [f'{{"step": {step}}}' for step in (0, 2**53, 2**53 - 1)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 2**53 - 1]
    MetricsLog(tmp_path, 2**53).write(1, 0.0)  # the last line had no end
    found = (tmp_path / "metrics.jsonl").read_text()
    assert found == "\n".join([*lines, '{"step": 1, "seconds": 0.0}', ""])
    for torn, kept in ((b"a note", b"a note\n"), (b'{"st', b""), (b'{"step": 1, "', b"")):
        (tmp_path / "metrics.jsonl").write_bytes(torn)
        MetricsLog(tmp_path, 2**53)
        assert (tmp_path / "metrics.jsonl").read_bytes() == kept


@pytest.mark.parametrize(
    "cut",
    [b'{"step": 9\n', b'{"step"\n', b'{"step": 2, "photos": [{"name": "a"}\n', b'{"step": 2, "na'],
)
def test_a_line_that_was_cut_is_removed_wherever_it_is(cut, tmp_path, monkeypatch):
    """Whole lines of others stay, whatever they hold."""
    monkeypatch.setattr("zoo.training.metrics_log.find_spec", lambda name: None)
    path = tmp_path / "metrics.jsonl"
    others = [
        b"a note\n",
        b"{\n",
        b"\n",
        b'{"ste\n',
        b'{"step": "x"}\n',
        b'{"step": ' + b"9" * 5000 + b"}\n",
    ]
    ours = [b'{"step": 1}\n', b'{"step": 2}\n']
    last = cut.endswith(b"\n")
    before = [ours[0], *others, cut, ours[1]] if last else [ours[0], *others, ours[1], cut]
    path.write_bytes(b"".join(before))
    MetricsLog(tmp_path, 2)
    assert path.read_bytes() == b"".join([ours[0], *others, ours[1]])


def test_progress_says_images_per_second_and_the_time_left(tmp_path, monkeypatch, caplog):
    """Images of the steps since the line before, over the seconds since; not steps, not all."""
    clock = [100.0]
    monkeypatch.setattr("zoo.training.progress.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("zoo.training.metrics_log.find_spec", lambda name: None)
    plan = [stage(4, 8, 6), stage(6, 8, 2)]
    with caplog.at_level(logging.INFO), Progress(tmp_path, plan, 2, is_first=True) as progress:
        assert progress.bar.n == 2 and progress.bar.total == 10
        progress.bar.disable = True  # as without a terminal
        clock[0] += 4
        progress.show_loss(5, 50.0, 0.5, 1e-3)  # two of six images and one of two, in 4 s
        clock[0] += 1
        progress.show_loss(6, 60.0, 0.25, 1e-3)
        clock[0] += 100  # a validation
        progress.restart_clock(6)
        clock[0] += 2
        progress.show_loss(8, 80.0, 0.25, 1e-3)
    lines = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["images_per_second"] for line in lines] == [3.5, 2.0, 2.0]
    assert lines[0] | {"loss": 0.5, "lr": 1e-3, "seconds": 50.0} == lines[0]
    assert "step 5 of 10: loss 0.5000, 3.5 images/s, 00:50 left" in caplog.text
    assert "step 8 of 10: loss 0.2500, 2.0 images/s, 00:20 left" in caplog.text


def test_the_first_process_alone_logs_and_closes_its_log(tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr("zoo.training.metrics_log.find_spec", lambda name: None)
    monkeypatch.setattr(MetricsLog, "close", lambda log: closed.append(log.folder.name))
    for name, is_first in (("first", True), ("second", False)):
        (tmp_path / name).mkdir()
        with Progress(tmp_path / name, [stage(4, 8, 6)], 0, is_first=is_first) as progress:
            progress.show_loss(1, 1.0, 0.5, 1e-3)
            assert not closed
        assert progress.bar.disable or is_first
        assert (tmp_path / name / "metrics.jsonl").exists() == is_first
        assert closed == (["first"] if is_first else [])
        closed.clear()


@pytest.mark.parametrize(
    ("baseline", "told"), [(20.5, "25.00 dB, 20.50 dB without the network"), (math.nan, "25.00 dB")]
)
def test_a_validation_tells_the_baseline_if_there_is_one(baseline, told, tmp_path, caplog):
    plan = [stage(2, 8, 1)]
    with caplog.at_level(logging.INFO), Progress(tmp_path, plan, 0, is_first=True) as progress:
        progress.show_validation(1, 1.0, {"psnr": 25.0, "baseline": baseline}, {})
    assert [record.getMessage() for record in caplog.records] == [f"step 1: {told}"]


def test_processes_beside_the_first_write_no_log(tmp_path):
    with Progress(tmp_path, [stage(2, 8, 1)], 0, is_first=False) as progress:
        progress.show_loss(1, 1.0, 0.5, 1e-3)
        progress.show_validation(1, 1.0, {"psnr": 1.0, "baseline": 1.0}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_a_second_one_interrupts(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), StopSignals() as signals:
        assert not signals.received
        os.kill(os.getpid(), number)
        assert signals.received == number
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_a_checkpoint_that_does_not_fit_says_what_was_wrong(tmp_path):
    wrong = pytest.raises(CheckpointError, match=r"a\.pt: holds another state .*KeyError: 'ema'")
    with wrong, restoring(tmp_path / "a.pt"):
        {}["ema"]


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 cut short"])
def test_what_is_no_archive_is_damaged_and_the_one_before_is_taken(content, tmp_path, caplog):
    write_checkpoint(tmp_path, {"step": 3}, step=3)
    (tmp_path / "checkpoint-00000004.pt").write_bytes(content)
    assert latest_checkpoint(tmp_path)[1] == {"step": 3}
    assert "checkpoint-00000004.pt, which is damaged (BadZipFile)" in caplog.text


def test_the_bar_shows_loss_and_speed_and_the_log_two_decimals(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("zoo.training.progress.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("zoo.training.metrics_log.find_spec", lambda name: None)
    with Progress(tmp_path, [stage(4, 8, 1)], 0, is_first=True) as progress:
        shown = []
        progress.bar.set_postfix = lambda **values: shown.append(values)
        counted = []
        progress.bar.update = lambda n=1: counted.append(n)
        progress.advance()
        progress.advance()
        assert counted == [1, 1]
        clock[0] += 3
        progress.show_loss(2, 3.0, 0.12345, 1e-3, real=0.5)
    assert shown == [{"loss": "0.1235", "images_per_s": "0.7"}]
    [line] = read_metrics(tmp_path)
    assert (line["images_per_second"], line["real"]) == (0.67, 0.5)


def test_tensorboard_gets_pictures_as_they_are_and_is_flushed_and_closed(tmp_path, monkeypatch):
    calls = []

    class Writer:
        def __init__(self, *words, **options):
            calls.append(("made", words, options))

        def __getattr__(self, name):
            return lambda *words, **options: calls.append((name, words, options))

    monkeypatch.setitem(
        sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer)
    )
    monkeypatch.setattr("zoo.training.metrics_log.find_spec", lambda name: name == "tensorboard")
    picture = np.zeros((3, 4, 3), np.float32)
    log = MetricsLog(tmp_path, 4)
    log.write(5, 1.0, loss=0.5, bands=[1.0], name="x")
    log.show(5, "x/a.png", picture)
    log.close()
    assert calls == [
        ("made", (str(tmp_path / "tensorboard"),), {"purge_step": 5}),
        ("add_scalar", ("loss", 0.5, 5), {}),
        ("flush", (), {}),
        ("add_image", ("validation/a", picture, 5), {"dataformats": "HWC"}),
        ("close", (), {}),
    ]
    assert (tmp_path / "validation" / "a.png").is_file()


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("place", ["at the start", "in its thread", "at a curve", "at a picture"])
def test_a_training_goes_on_without_tensorboard(place, tmp_path, monkeypatch, caplog, capsys):
    """Its thread fails in the background; a warning names the path, once, and no traceback."""
    from tensorboard.summary.writer import event_file_writer
    from torch.utils.tensorboard import SummaryWriter

    hook = threading.excepthook
    if place == "at the start":
        monkeypatch.setattr(event_file_writer, "RecordWriter", full)
    log = MetricsLog(tmp_path, 0)
    if place == "in its thread":
        monkeypatch.setattr(event_file_writer.RecordWriter, "write", full)
    elif place == "at a curve":
        monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    elif place == "at a picture":
        monkeypatch.setattr(SummaryWriter, "add_image", full)
    for step in (1, 2, 3):
        log.write(step, 1.0, loss=0.5)
        log.show(step, "a.png", np.zeros((3, 4, 3), np.float32))
    log.close()
    [record] = caplog.records
    assert record.getMessage() == (
        f"{tmp_path / 'tensorboard'}: TensorBoard's files are not written any more ([Errno 28] No "
        "space left on device); the training goes on without them"
    )
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]
    assert (tmp_path / "validation" / "a.png").is_file()
    assert "Traceback" not in capsys.readouterr().err and threading.excepthook is hook


def test_errors_of_other_threads_are_shown_while_tensorboard_writes(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(threading, "excepthook", lambda found: seen.append(found.exc_type))
    log = MetricsLog(tmp_path, 0)
    thread = threading.Thread(target=full)
    thread.start()
    thread.join()
    log.close()
    assert seen == [OSError]


def test_tensorboard_keeps_pictures_of_a_few_photos_and_the_folder_the_newest_of_all(tmp_path):
    from tensorboard.backend.event_processing import event_accumulator as accumulator

    log = MetricsLog(tmp_path, 0)
    names = [f"{number}.png" for number in range(MOST_PICTURES + 3)]
    for step in (1, 2):
        for name in names:
            log.show(step, name, np.full((3, 4, 3), step / 4, np.float32))
    log.close()
    seen = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    seen.Reload()
    assert seen.Tags()["images"] == [f"validation/{n}" for n in range(MOST_PICTURES)]
    assert [event.step for event in seen.Images("validation/0")] == [1, 2]
    assert len(list((tmp_path / "validation").iterdir())) == len(names)


def test_a_line_of_the_log_that_cannot_be_written_names_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.training.metrics_log.find_spec", lambda name: None)
    log = MetricsLog(tmp_path, 0)
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(WriteError, match=r"metrics\.jsonl: cannot write: No space left on device"):
        log.write(1, 1.0, loss=0.5)


def test_an_old_checkpoint_that_is_gone_meanwhile_is_no_error(tmp_path, monkeypatch):
    """Another program, or the user, may tidy up at the same time."""
    found = [(step, tmp_path / f"{step}.pt") for step in (1, 2, 3)]
    for _, path in found[1:]:
        path.touch()
    monkeypatch.setattr("zoo.training.checkpoint._checkpoints", lambda folder: found)
    remove_old_checkpoints(tmp_path, step=3, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["3.pt"]
