from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Calr
from tests.support.made_up import write_image


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "yard").mkdir()
    for pid in range(4):
        for camera in (1, 2):
            write_image(tmp_path / "yard" / f"{pid}_c{camera}.jpg", pid, seed=camera)
    return tmp_path / "yard"


def test_the_table_and_the_json_say_the_same(calr: Calr, veri_root: Path) -> None:
    answer = calr("prepare-data", "--root", veri_root)
    assert answer.exit_code == 0
    lines = [line.split() for line in answer.stdout.splitlines()]
    assert answer.stdout.splitlines()[0] == "VeRi-776, VeRi-776"
    assert lines[2][:4] == ["split", "images", "identities", "cameras"]
    assert lines[3] == ["train", "72", "12", "3", "37,778", "576"]
    cameras = lines[lines.index(["camid", "train", "query", "gallery", "train", "officially"]) + 1 :][:20]
    assert cameras[0] == ["0", "24", "6", "6", "2,277"]
    assert cameras[19] == ["19", "0", "0", "0", "22"]
    assert ["width", "16", "to", "16", "pixels,", "median", "16"] in lines
    assert "missing      37,706 images of train, 1,660 images of query, " in answer.stdout
    assert (
        "warning: VeRi-776: train has 72 images of 12 identities, officially 37,778 of 576" in answer.stderr
    )
    assert "Market-1501 is not under" in answer.stderr
    assert answer.stderr.splitlines()[-1] == "next: calr train -d veri"
    (card,) = calr("prepare-data", "--root", veri_root, "--json").json["datasets"]
    assert (card["name"], card["splits"]["train"]) == ("veri", {"images": 72, "ids": 12, "cameras": 3})
    assert card["images_per_camera"]["query"] == [6, 6, 6]
    assert card["official"]["images"] == [37778, 1678, 11579]
    assert card["missing"]["train"] == 37706
    assert card["sizes"] == {"width": [16, 16, 16], "height": [32, 32, 32]}
    assert (card["distractors"], card["junk"]) == (0, 0)


def test_the_root_is_remembered_and_the_environment_goes_before(
    calr: Calr, veri_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert calr("prepare-data", "--root", veri_root).exit_code == 0
    assert calr("prepare-data", "--json").json["datasets"][0]["source"] == str(veri_root)
    monkeypatch.setenv("CALR_DATA", str(tmp_path / "elsewhere"))
    answer = calr("prepare-data")
    assert answer.exit_code == 1
    assert str(tmp_path / "elsewhere") in answer.errors[0]


def test_no_root_was_ever_given(calr: Calr) -> None:
    answer = calr("prepare-data")
    assert answer.exit_code == 1
    assert answer.errors == [
        "error: which folder? None was given before. Give --root DIR, or --images DIR for your own"
    ]


def test_own_images(calr: Calr, images: Path) -> None:
    pattern = r"(?P<pid>-?\d+)_c(?P<camid>\d)"
    answer = calr("prepare-data", "--images", images, "--pattern", pattern, "--split", "0.5", "--json")
    (card,) = answer.json["datasets"]
    assert card["name"] == "yard"
    assert [card["splits"][split]["images"] for split in ("train", "query", "gallery")] == [4, 2, 2]


def test_own_images_without_a_pattern(calr: Calr, images: Path) -> None:
    answer = calr("prepare-data", "--images", images)
    assert answer.exit_code == 0
    (line,) = [line for line in answer.stderr.splitlines() if line.startswith("warning: ")]
    assert line.startswith(f"warning: {images}: no camid is given, so all images count as one camera's: ")
    assert answer.stdout.splitlines()[3].split() == ["train", "8", "0", "1"]


def test_names_that_are_no_text(calr: Calr, images: Path) -> None:
    """They are shown with what they have of text, wherever they are shown."""
    (images / "caf\udce9.jpg").touch()
    (images / "line\nbreak.jpg").write_bytes((images / "0_c1.jpg").read_bytes())
    for flags in ([], ["--json"]):
        answer = calr("prepare-data", "--images", images, "--pattern", r"(?P<camid>[12])\.", *flags)
        assert answer.exit_code == 0, answer.stderr
    answer = calr("prepare-data", "--images", images, "--json")
    (card,) = answer.json["datasets"]
    assert card["unreadable"] == ["caf\udce9.jpg (empty file)"]


def test_own_table(calr: Calr, images: Path) -> None:
    rows = [f"{path.name},{path.stem[-1]}\n" for path in images.iterdir()]
    (images / "table.csv").write_text("path,camid\n" + "".join(rows), encoding="utf-8")
    (card,) = calr("prepare-data", "--csv", images / "table.csv", "--name", "gate", "--json").json["datasets"]
    assert (card["name"], card["splits"]["train"]) == ("gate", {"images": 8, "ids": 0, "cameras": 2})


@pytest.mark.parametrize(
    ("flags", "lines"),
    [
        (["--pattern", "x"], ["--pattern is for --images DIR, which is not given"]),
        (
            ["--root", "x", "--csv", "y", "--images", "z", "--pattern", "p"],
            ["--root and --images and --csv contradict each other: give one of them"],
        ),
        (
            ["--root", "x", "--name", "n", "--split", "0.5"],
            [
                "--name is for your own images: it needs --images DIR or --csv FILE",
                "--split is for your own images: it needs --images DIR or --csv FILE",
            ],
        ),
        (
            ["--csv", "x", "--archive", "y", "--download"],
            [
                "--archive is for published datasets, --csv for your own images: give one of them",
                "--download is for published datasets, --csv for your own images: give one of them",
                "--archive and --download contradict each other: give one of them",
            ],
        ),
        (["--csv", "x", "--seed", "1"], ["--seed is for --split SHARE, which is not given"]),
        (["--csv", "x", "--split", "half"], ["--split half is not a number. Write for instance --split 0.5"]),
        (
            ["--csv", "x", "--split", "0.5", "--seed", "1.5"],
            ["--seed 1.5 is not a whole number from 0. Write for instance --seed 1"],
        ),
        (
            ["--csv", "x", "--split", "0.5", "--seed", "-1"],
            ["--seed -1 is not a whole number from 0. Write for instance --seed 1"],
        ),
    ],
)
def test_combinations_that_make_no_sense(calr: Calr, flags: list[str], lines: list[str]) -> None:
    answer = calr("prepare-data", *flags)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert answer.stderr.splitlines() == [f"error: {line}" for line in lines]


def test_a_root_that_is_not_there_or_empty(calr: Calr, tmp_path: Path) -> None:
    for root in (tmp_path / "absent", tmp_path):
        answer = calr("prepare-data", "--root", root)
        assert (answer.exit_code, len(answer.errors)) == (1, 1)
        assert str(root) in answer.errors[0]


def test_images_that_cannot_be_read_are_named(calr: Calr, veri_root: Path) -> None:
    first, second = sorted((veri_root / "veri/VeRi/image_train").iterdir())[:2]
    first.write_bytes(b"")
    second.write_bytes(second.read_bytes()[:200])
    answer = calr("prepare-data", "--root", veri_root, "--quiet")
    assert answer.exit_code == 0
    assert f"image_train/{first.name} (empty file)" in answer.stderr
    assert f"image_train/{second.name} (damaged" in answer.stderr
    assert "unreadable   2 images, left out" in answer.stdout
    assert first.name not in answer.stdout
    for path in sorted((veri_root / "veri/VeRi/image_train").iterdir())[2:13]:
        path.write_bytes(b"")
    answer = calr("prepare-data", "--root", veri_root, "--verify")
    assert answer.stdout.splitlines()[-14] == "cannot be read:"
    assert answer.stdout.splitlines()[-13] == f"  image_train/{first.name} (empty file)"


def test_an_archive_from_elsewhere(calr: Calr, veri_root: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "elsewhere"), "zip", veri_root)
    answer = calr("prepare-data", "--root", tmp_path / "root", "--archive", archive, "--json")
    assert "elsewhere.zip holds VeRi-776 (VeRi-776), unpacked in " in answer.stderr
    (card,) = answer.json["datasets"]
    assert card["root"] == str(tmp_path / "root/elsewhere/veri/VeRi")
    assert calr("prepare-data", "--archive", archive, "--json").json["datasets"] == [card]


def test_a_manifest_edited_into_nonsense(calr: Calr, veri: str, calr_home: Path, folder: Path) -> None:
    manifest = calr_home / "datasets/veri/manifest.csv"
    text = manifest.read_text(encoding="utf-8").replace("train,", "trian,", 1)
    manifest.write_text(text, encoding="utf-8")
    answer = calr("train-inter", "-d", veri, "--pretrained", "none")
    assert (answer.exit_code, len(answer.errors)) == (1, 1)
    assert "split is none of train, query, gallery: 'trian'" in answer.errors[0]
    assert list(folder.iterdir()) == []


def test_images_that_went_away(calr: Calr, veri: str, veri_root: Path) -> None:
    shutil.rmtree(veri_root)
    answer = calr("train-inter", "-d", veri, "--pretrained", "none")
    assert (answer.exit_code, len(answer.errors)) == (1, 1)
    assert "The images of veri are no longer in" in answer.errors[0]
