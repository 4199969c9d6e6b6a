from __future__ import annotations

import pytest

from calr_cli import errors
from calr_cli.errors import CalrError, ConfigError, DataError


def test_one_problem_with_and_without_a_hint() -> None:
    assert DataError("a.jpg: cannot be read").lines() == ["a.jpg: cannot be read"]
    error = DataError("a.jpg: cannot be read", "Delete it")
    assert error.lines() == ["a.jpg: cannot be read. Delete it"]
    assert str(error) == "a.jpg: cannot be read. Delete it"
    assert (error.problems, error.hint) == (("a.jpg: cannot be read",), "Delete it")


def test_several_problems_are_a_line_each_and_the_hint_follows_the_last() -> None:
    error = ConfigError(["first", "second"], "Do this")
    assert error.lines() == ["first", "second. Do this"]
    assert str(error) == "first\nsecond. Do this"


@pytest.mark.parametrize("name", [n for n in vars(errors) if n.endswith("Error")])
def test_every_error_is_caught_at_the_one_boundary(name: str) -> None:
    assert issubclass(getattr(errors, name), CalrError)
