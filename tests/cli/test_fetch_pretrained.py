from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from calr_cli.models.backbones import ARCHS, TINY
from calr_cli.models.released_weights import RELEASES, Release
from tests.cli.conftest import Calr
from tests.support.site import Site, ranges, status

CONTENT = bytes(range(256)) * 800
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = f"tiny-{SHA256[:8]}.pth"


@pytest.fixture
def published(site: Site, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of what stands for the weights of resnet18."""
    url = site.put(f"/{NAME}", ranges(CONTENT))
    monkeypatch.setitem(RELEASES, "resnet18", Release(url, SHA256))
    return url


def test_downloads_and_prints_where_it_is(calr: Calr, calr_home: Path, published: str) -> None:
    answer = calr("fetch-pretrained", "-a", "resnet18")
    path = calr_home / "weights" / NAME
    assert (answer.exit_code, answer.stdout, answer.errors) == (0, f"{path}\n", [])
    assert calr("fetch-pretrained", "-a", "resnet18", "--json").json == {
        "arch": "resnet18",
        "path": str(path),
    }


def test_what_went_wrong_is_one_line(calr: Calr, site: Site, published: str) -> None:
    site.put(f"/{NAME}", status(404))
    answer = calr("fetch-pretrained", "-a", "resnet18")
    assert (answer.exit_code, answer.stdout) == (1, "")
    (line,) = answer.errors
    assert line.startswith(f"error: {published} answers 404 Not Found. Try again later, or get ")


def test_retries_are_said(calr: Calr, site: Site, published: str, waits: list[float]) -> None:
    site.put(f"/{NAME}", status(503), ranges(CONTENT))
    answer = calr("fetch-pretrained", "-a", "resnet18")
    assert answer.exit_code == 0
    assert answer.stderr == f"{published} answers 503 Service Unavailable: trying again in 1 s\n"


def test_mirrors(calr: Calr, site: Site, published: str) -> None:
    site.put(f"/b/{NAME}", ranges(CONTENT))
    mirrors = ["--mirror", f"{site.address}/a", "--mirror", f"{site.address}/b"]
    assert calr("fetch-pretrained", "-a", "resnet18", *mirrors).exit_code == 0
    assert [path for path, _ in site.asked] == [f"/a/{NAME}", f"/b/{NAME}"]


def test_a_file_fetched_by_hand(calr: Calr, calr_home: Path, site: Site, published: str) -> None:
    Path("by-hand.pth").write_bytes(CONTENT)
    answer = calr("fetch-pretrained", "-a", "resnet18", "--file", "by-hand.pth")
    assert answer.stdout == f"{calr_home / 'weights' / NAME}\n"
    assert site.asked == []


def test_list(calr: Calr, calr_home: Path, published: str) -> None:
    before = calr("fetch-pretrained", "--list", "--json").json["weights"]
    assert [row["arch"] for row in before] == list(RELEASES)
    assert set(RELEASES) == set(ARCHS) - {TINY}
    assert [row["cached"] for row in before] == [None] * len(RELEASES)
    ibn = next(row for row in before if row["arch"] == "resnet_ibn50a")
    assert ibn == {
        "arch": "resnet_ibn50a",
        "sources": [
            "https://github.com/XingangPan/IBN-Net/releases/download/v1.0/resnet50_ibn_a-d9d0bb7b.pth",
            "https://drive.google.com/drive/folders/1thS2B8UOSBi_cJX6zRy6YYRwz_nVFI_S",
        ],
        "sha256": "d9d0bb7b",
        "mebibytes": None,
        "licence": "see source",
        "cached": None,
    }

    calr("fetch-pretrained", "-a", "resnet18", "--quiet")
    after = calr("fetch-pretrained", "--list", "--json").json["weights"]
    path = str(calr_home / "weights" / NAME)
    assert [row["cached"] for row in after] == [path if row["arch"] == "resnet18" else None for row in after]
    lines = [line.split("  ") for line in calr("fetch-pretrained", "--list").stdout.splitlines()]
    rows = {words[0]: [word.strip() for word in words[1:] if word] for words in lines}
    assert rows["arch"] == ["source", "licence", "cached", "size"]
    assert rows["resnet50"] == ["download.pytorch.org", "see source", "no", "97.8 MiB"]
    assert rows["resnet_ibn50a"] == ["github.com, drive.google.com", "see source", "no", "unknown"]
    assert rows["resnet18"][2] == "yes"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--list", "-a", "resnet18"], "--list shows every architecture: leave -a, --file and --mirror out"),
        (
            ["-a", "resnet18", "--file", "x", "--mirror", "y"],
            "--file and --mirror contradict each other: give one of them",
        ),
    ],
)
def test_flags_that_contradict_each_other(calr: Calr, words: list[str], line: str) -> None:
    answer = calr("fetch-pretrained", *words)
    assert (answer.exit_code, answer.errors) == (1, [f"error: {line}"])


def test_an_unknown_architecture(calr: Calr) -> None:
    answer = calr("fetch-pretrained", "-a", "resnet5")
    assert answer.exit_code == 1
    assert answer.errors[0].startswith("error: unknown arch 'resnet5' (did you mean 'resnet50'?)")
