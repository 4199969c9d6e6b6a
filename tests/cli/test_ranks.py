"""Of the processes that torchrun started the first one works and prints for all."""

from __future__ import annotations

import pytest
import typer

from calr_cli.cli.console import RichReporter, print_json, reporter_for
from calr_cli.cli.ranks import is_main, on_main
from calr_cli.distributed import collectives
from calr_cli.events import SilentReporter


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What this process sends to the others."""
    values: list[object] = []
    monkeypatch.setattr(collectives, "broadcast", values.append)
    return values


def test_the_first_process_sends_what_it_made(monkeypatch: pytest.MonkeyPatch, sent: list[object]) -> None:
    monkeypatch.setenv("RANK", "0")
    assert on_main(lambda: "made") == "made"
    assert on_main(lambda: None) is None
    assert sent == [["made"], [None]]  # told from the None of a failure


def test_nobody_waits_for_a_first_process_that_failed(
    monkeypatch: pytest.MonkeyPatch, sent: list[object]
) -> None:
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ZeroDivisionError):
        on_main(lambda: 1 // 0)
    assert sent == [None]


def test_the_others_take_what_they_get(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(collectives, "broadcast", lambda value: [None])
    assert on_main(lambda: 1 // 0) is None
    monkeypatch.setattr(collectives, "broadcast", lambda value: None)
    with pytest.raises(typer.Exit) as caught:
        on_main(lambda: 1)
    assert caught.value.exit_code == 1


def test_results_and_notes_are_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert is_main()
    assert isinstance(reporter_for(False), RichReporter)
    monkeypatch.setenv("RANK", "3")
    assert not is_main()
    assert isinstance(reporter_for(False), SilentReporter)
    print_json({"mAP": 1.0})
    assert capsys.readouterr() == ("", "")
