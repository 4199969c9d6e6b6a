"""What launchers set, what is left of them, and what makes no sense."""

from __future__ import annotations

import pytest

from calr_cli.distributed.place import REMEDY, Place, is_first, told_place
from calr_cli.errors import ConfigError


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def told(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Place | None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return told_place()


@pytest.mark.parametrize("left", [{}, {"RANK": "1"}, {"LOCAL_RANK": "3"}, {"WORLD_SIZE": "", "RANK": "x"}])
def test_without_a_world_there_is_no_place(monkeypatch: pytest.MonkeyPatch, left: dict[str, str]) -> None:
    """A leftover RANK=1 once made every command silent."""
    assert told(monkeypatch, **left) is None
    assert is_first()


def test_places(monkeypatch: pytest.MonkeyPatch) -> None:
    torchrun = {"WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert told(monkeypatch, **torchrun) == Place(5, 8, 1, 4)
    assert not is_first()
    monkeypatch.delenv("LOCAL_WORLD_SIZE")  # a cluster's launcher, which does not say how many are here
    assert told(monkeypatch, RANK="0", LOCAL_RANK="0") == Place(0, 8, 0, None)
    assert is_first()
    assert told(monkeypatch, WORLD_SIZE="1") == Place(0, 1, 0, 1)  # that there are no others is said


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two' in the environment, not a number"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK is '-1' in the environment, not a number"),
        ({"WORLD_SIZE": "2", "RANK": "\u0661"}, "RANK is '\u0661' in the environment, not a number"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK is 2 in the environment, and WORLD_SIZE 2"),
        ({"WORLD_SIZE": "0", "RANK": "0"}, "RANK is 0 in the environment, and WORLD_SIZE 0"),
        ({"WORLD_SIZE": "1", "LOCAL_RANK": "3"}, "LOCAL_RANK is 3 in the environment, and WORLD_SIZE 1"),
        (
            {"WORLD_SIZE": "8", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "2"},
            "LOCAL_RANK is 3 in the environment, and LOCAL_WORLD_SIZE 2",
        ),
    ],
)
def test_what_makes_no_sense(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], line: str) -> None:
    with pytest.raises(ConfigError) as error:
        told(monkeypatch, **variables)
    assert error.value.lines() == [f"{line}. {REMEDY}"]
