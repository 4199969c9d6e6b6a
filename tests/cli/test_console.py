from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import sys
import time
from dataclasses import replace
from threading import Thread

import pytest

from calr_cli.cli import console
from calr_cli.cli.console import RichReporter, Step, print_json, print_paths, print_table
from calr_cli.figures import BeforeAndAfter, IntraEpoch, LabelQuality, RefinementQuality, Seconds
from tests.support.epoch_figures import inter_epoch


def pair_f(value: float) -> LabelQuality:
    return LabelQuality(0.5, 0.5, value, 0.5, 0.5, 0.5, 0.5, 1, 1, 1, 1)


CLUSTERED = BeforeAndAfter(pair_f(0.4), pair_f(0.45))
INTRA = IntraEpoch(
    camera=2, epoch=0, images=700, clusters=140, batch=64, silhouette=0.125, loss=1.5,
    seconds=Seconds(1.0, 0.5, 2.0), quality=pair_f(0.4321),
)  # fmt: skip
INTER = inter_epoch(
    9, images=6504, clusters=381, outliers=1204, discarded=1310, without_pivot=7, loss=2.25, camera_loss=None,
    seconds=Seconds(11.0, 2.5, 30.0), quality=RefinementQuality(CLUSTERED, CLUSTERED, 0.914),
)  # fmt: skip


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step is a long one."""
    monkeypatch.setattr(console, "PATIENCE", 0.0)
    monkeypatch.setattr(console, "HEARTBEAT", 0.0)


def work(reporter: RichReporter) -> None:
    with reporter.progress("features", 700, "images") as progress:
        time.sleep(0.05)
        progress.advance(300)
        progress.advance(400, loss=1.23456)


def test_long_steps_are_lines_where_there_is_no_terminal(
    impatient: None, capsys: pytest.CaptureFixture[str]
) -> None:
    work(RichReporter())
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[0] == "features: 0/700 images"
    assert re.fullmatch(r"features: 300/700 images, [\d,]+ images/s", lines[1])
    assert re.fullmatch(r"features: 700 images in \d+\.\d s, [\d,]+ images/s, loss 1\.235", lines[-1])


def test_short_steps_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    work(RichReporter())
    assert capsys.readouterr() == ("", "")


def test_an_interrupted_step_does_not_claim_its_end(
    impatient: None, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped() -> None:
        with RichReporter().progress("features", 700, "images"):
            time.sleep(0.05)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert capsys.readouterr().err == "features: 0/700 images\n"


def test_steps_in_words() -> None:
    step = Step("downloading", 14_200_000, "bytes")
    step.advance(7_100_000)
    assert step.state().startswith("7.1/14.2 MB, ")
    assert Step("clustering", 0, "").state() == "working"


def test_what_was_done_before_is_not_its_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("calr_cli.cli.console.perf_counter", lambda: now[0])
    step = Step("epoch 6/12", 70, "iterations", 60)
    assert step.state() == "60/70 iterations"
    now[0] = 5
    step.advance(10)
    assert step.state() == "70/70 iterations, 2 it/s"
    assert step.summary() == "10 iterations in 5.0 s, 2 it/s"


def test_header_only_where_the_kind_of_row_changes(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = RichReporter()
    for row in (INTRA, INTRA, INTER, INTER):
        reporter.metric(row)
    lines = capsys.readouterr().err.splitlines()
    intra = ["camera", "epoch", "images", "clusters", "silhouette", "loss", "pair", "F", "seconds"]
    assert [line.split()[0] for line in lines] == ["camera", "2", "2", "epoch", "10", "10"]
    assert lines[0].split() == intra
    assert lines[1].split() == ["2", "1", "700", "140", "0.1250", "1.500", "0.432", "3.5"]
    assert lines[4].split() == [
        "10", "381", "1204", "1310", "91%", "7", "2.250", "-", "0.400>0.450", "11.0", "2.5", "30.0"
    ]  # fmt: skip
    assert len({len(line) for line in lines[:3]}) == len({len(line) for line in lines[3:]}) == 1


def test_rows_without_identities(capsys: pytest.CaptureFixture[str]) -> None:
    for row in (INTRA, INTER):
        RichReporter().metric(replace(row, quality=None))
    rows = [line.split() for line in capsys.readouterr().err.splitlines()]
    assert (rows[1][6], rows[3][4], rows[3][8]) == ("-", "-", "-")


def test_quiet_keeps_warnings(impatient: None, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = RichReporter(quiet=True)
    reporter.stage("stage 1")
    reporter.note("by the way")
    reporter.metric(INTRA)
    work(reporter)
    reporter.warning("one cluster holds all")
    assert capsys.readouterr() == ("", "warning: one cluster holds all\n")


def test_results_are_whole_when_piped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # CI services set FORCE_COLOR; 80 columns is what a pipe seems to have.
    monkeypatch.setenv("FORCE_COLOR", "1")
    long = "/a/very/long/path" * 20
    print_table(["model", "mAP"], [["untrained", "7.5"], ["CALR", "48.8"]])
    print_paths({"model": f"{long} [bold]"})
    assert capsys.readouterr().out.split() == [
        "model", "mAP", "untrained", "7.5", "CALR", "48.8", "model", long, "[bold]"
    ]  # fmt: skip


def test_json_is_unrounded_and_alone(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"mAP": 100 / 3})
    assert json.loads(capsys.readouterr().out) == {"mAP": 100 / 3}


def test_live_bars_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    shown: list[bytes] = []
    reader = Thread(target=drain, args=(ours, shown))  # a terminal that nobody reads blocks its writers
    with os.fdopen(theirs, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", "120")
        reader.start()
        reporter = RichReporter()
        with reporter.progress("epoch 1/2", 400, "iterations") as progress:
            progress.advance(100, loss=2.5)
            with reporter.progress("features", 0, "images") as inner:  # of unknown length, inside another
                inner.advance(7)
                time.sleep(0.5)
            reporter.note("said meanwhile")
    reader.join(10)
    os.close(ours)
    text = b"".join(shown).decode()
    for part in ("epoch 1/2", "100/400 iterations", "loss 2.500", "7 images", "said meanwhile"):
        assert part in text


def test_steps_of_several_devices_end_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    # What begins a live display need not be what ends it: devices begin and end as they like.
    ours, theirs = pty.openpty()
    shown: list[bytes] = []
    reader = Thread(target=drain, args=(ours, shown))
    with os.fdopen(theirs, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", "120")
        reader.start()
        reporter = RichReporter()
        first = reporter.progress("cuda:0: camera 3", 100, "iterations")
        second = reporter.progress("cuda:1: camera 5", 200, "iterations")
        for step, count in ((first, 30), (second, 40)):
            step.__enter__().advance(count)
        first.__exit__(None, None, None)
        third = reporter.progress("cuda:0: camera 1", 300, "iterations")
        third.__enter__().advance(50)
        time.sleep(0.5)
        for step in (second, third):
            step.__exit__(None, None, None)
        with reporter.progress("clustering", 0):
            time.sleep(0.3)
    reader.join(10)
    os.close(ours)
    text = b"".join(shown).decode()
    for part in ("cuda:1: camera 5", "40/200 iterations", "cuda:0: camera 1", "50/300", "clustering"):
        assert part in text


def test_threads_do_not_mix_their_lines(impatient: None, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = RichReporter()

    def camera(device: int) -> None:
        for step in range(20):
            with reporter.progress(f"cuda:{device}: camera {step}", 4, "iterations") as progress:
                for _ in range(4):
                    progress.advance()
            reporter.metric(replace(INTRA, camera=device))

    threads = [Thread(target=camera, args=(device,)) for device in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    lines = capsys.readouterr().err.splitlines()
    rows = [line.split() for line in lines if not line.startswith("cuda:")]
    assert rows[0][0] == "camera"
    assert sorted(row[0] for row in rows[1:]) == sorted(str(device) for device in range(4) for _ in range(20))
    step = r"cuda:\d: camera \d+: (\d(/4)? iterations( in \d+\.\d s)?(, [\d.,e+]+ it/s)?)"
    assert [line for line in lines if line.startswith("cuda:") and not re.fullmatch(step, line)] == []


def drain(descriptor: int, into: list[bytes]) -> None:
    with contextlib.suppress(OSError):  # how a terminal says that its other side was closed
        while part := os.read(descriptor, 4096):
            into.append(part)
