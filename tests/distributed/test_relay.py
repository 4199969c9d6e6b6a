from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from calr_cli.distributed.relay import OnlyWarnings, Relay, Replay, Said
from calr_cli.events import Progress
from calr_cli.figures import EpochFigures
from tests.support.epoch_figures import inter_epoch
from tests.support.heard import Heard


class Transcript:
    """Everything that a reporter hears, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def stage(self, title: str) -> None:
        self.lines.append(f"stage {title}")

    def metric(self, row: EpochFigures) -> None:
        self.lines.append(f"metric {row}")

    def note(self, text: str) -> None:
        self.lines.append(f"note {text}")

    def warning(self, text: str) -> None:
        self.lines.append(f"warning {text}")

    @contextmanager
    def progress(self, title: str, total: int, unit: str = "", done: int = 0) -> Iterator[Progress]:
        self.lines.append(f"begin {title} {total} {unit}")
        try:
            yield _Counted(title, self.lines, done)
        except BaseException:
            self.lines.append(f"left {title}")
            raise
        self.lines.append(f"end {title}")


class _Counted:
    def __init__(self, title: str, lines: list[str], done: int) -> None:
        self.title, self.lines, self.done = title, lines, done

    def advance(self, count: int = 1, **figures: float) -> None:
        self.done += count
        self.lines.append(f"{self.title} at {self.done} {figures}")


def test_what_is_said_on_one_side_is_heard_on_the_other() -> None:
    transcript = Transcript()
    replay = Replay(transcript)
    relay = Relay(lambda said: replay(0, said), "cuda:1 ")
    relay.stage("camera 3")
    relay.note("a note")
    relay.warning("a warning")
    relay.metric(inter_epoch(1))
    assert transcript.lines == [
        "stage cuda:1 camera 3",
        "note a note",
        "warning a warning",
        f"metric {inter_epoch(1)}",
    ]


def test_a_fast_loop_sends_its_steps_together_and_loses_none() -> None:
    transcript = Transcript()
    replay = Replay(transcript)
    with Relay(lambda said: replay(0, said)).progress("training", 1000, "iterations", 10) as progress:
        for step in range(10, 1000):
            progress.advance(loss=float(step))
    assert transcript.lines[0] == "begin training 1000 iterations"
    assert transcript.lines[-2:] == ["training at 1000 {'loss': 999.0}", "end training"]
    assert len(transcript.lines) < 500


def test_ranks_may_have_steps_under_way_side_by_side() -> None:
    transcript = Transcript()
    replay = Replay(transcript)
    replay(0, Said("begin", ("first", 1, "")))
    replay(1, Said("begin", ("second", 1, "")))
    replay(0, Said("end", ()))
    assert transcript.lines == ["begin first 1 ", "begin second 1 ", "end first"]
    replay.close()  # the second rank was killed, and did not come to its end
    assert transcript.lines[3:] == ["left second"]


def test_a_step_that_an_exception_left_does_not_claim_its_end() -> None:
    transcript = Transcript()
    replay = Replay(transcript)
    with (
        pytest.raises(KeyboardInterrupt),
        Relay(lambda said: replay(0, said)).progress("training", 9, "iterations"),
    ):
        raise KeyboardInterrupt
    assert transcript.lines == ["begin training 9 iterations", "left training"]


def test_what_two_ranks_say_is_said_once_and_what_one_repeats_is_repeated() -> None:
    heard = Heard()
    replay = Replay(heard)
    for rank in (1, 0, 1):
        Relay(lambda said, rank=rank: replay(rank, said)).warning("the disk is slow")
    assert heard.warnings == ["the disk is slow"] * 2


def test_other_ranks_only_warn() -> None:
    heard = Heard()
    reporter = OnlyWarnings(heard)
    reporter.note("a note")
    reporter.warning("a warning")
    assert (heard.notes, heard.warnings) == ([], ["a warning"])
