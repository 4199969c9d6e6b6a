"""What is written down about program and machine, with and without git."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from calr_cli.runs.environment import differing, environment

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return tmp_path


def git(*words: str) -> None:
    person = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    subprocess.run(["git", *person, *words], check=True, capture_output=True)


def test_the_revision_of_the_current_folder(here: Path) -> None:
    assert "here" not in environment([CPU])["git"]
    git("init", "-q")
    assert "here" not in environment([CPU])["git"]  # a repository without a commit
    (here / "notes.txt").write_text("first\n")
    git("add", "notes.txt")
    git("commit", "-q", "-m", "first")
    clean = environment([CPU])["git"]["here"]
    assert len(clean["revision"]) == 40
    assert clean["dirty"] is False
    (here / "notes.txt").write_text("second\n")
    assert environment([CPU])["git"]["here"] == {**clean, "dirty": True}


def test_without_git(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(here))
    assert environment([CPU])["git"] == {}


def test_what_the_last_bits_depend_on() -> None:
    before = environment([CPU])
    assert differing(before, [CPU]) == []
    assert differing({}, [CPU]) == []  # begun by a version that did not write it down
    assert differing(before, [CPU, CPU]) == ["processes 2, not 1"]
    other = {**before, "threads": 99, "packages": {"torch": "2.4.0"}}
    threads = torch.get_num_threads()
    now = before["packages"]["torch"]
    assert differing(other, [CPU]) == [f"threads {threads}, not 99", f"torch {now}, not 2.4.0"]
