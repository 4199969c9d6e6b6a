from __future__ import annotations

from pathlib import Path

import pytest

from calr_cli.data.local_labels import write_local_labels
from calr_cli.prepare.prepared import load_dataset
from calr_cli.types import ImageSet
from tests.cli.conftest import Calr
from tests.support.released import write_released


@pytest.fixture
def images(veri: str) -> ImageSet:
    return load_dataset(veri).train


@pytest.fixture
def theirs(images: ImageSet, folder: Path) -> Path:
    """Labels of the made-up VeRi in the released form: the identities, but for one image of camera 0."""
    labels = images.pids.copy()
    labels[images.camids.tolist().index(0)] = 99
    rows = zip(images.paths, images.camids.tolist(), labels.tolist(), strict=True)
    return write_released(folder / "theirs", rows).relative_to(folder)


def test_import_score_and_diff(calr: Calr, theirs: Path, images: ImageSet, folder: Path) -> None:
    imported = calr("labels", "import", theirs, "-d", "veri")
    assert imported.exit_code == 0
    assert imported.stdout.splitlines() == [
        "camera  images  clusters",
        "0           24        13",
        "1           24        12",
        "2           24        12",
        "all         72        37",
        "",
        "local labels  local_labels.csv",
    ]
    assert imported.stderr.splitlines() == [
        "images matched by file name, cameras counted from 1; 0 row(s) of other images",
        "next: calr train-inter -d veri --local-labels local_labels.csv",
    ]

    scored = calr("labels", "score", "local_labels.csv", "-d", "veri")
    lines = [line.split() for line in scored.stdout.splitlines()]
    assert " ".join(lines[0]) == "camera images clusters of one ids pair P R F BCubed P R F NMI"
    assert lines[1][:9] == ["0", "24", "13", "15%", "12", "1.000", "0.917", "0.957", "1.000"]
    assert lines[4][:8] == ["weighted", "72", "37", "5%", "36", "1.000", "0.972", "0.986"]
    assert lines[5] == ["pooled", "-", "-", "-", "-", "1.000", "0.972", "0.986", "-", "-", "-", "-"]
    assert scored.stderr == ""

    write_local_labels(folder / "mine.csv", images, images.pids)
    compared = calr("labels", "diff", "local_labels.csv", "mine.csv")
    assert [line.split() for line in compared.stdout.splitlines()][1:5] == [
        ["0", "24", "13", "12", "1", "4.2", "0.955"],
        ["1", "24", "12", "12", "0", "0.0", "1.000"],
        ["2", "24", "12", "12", "0", "0.0", "1.000"],
        ["all", "72", "37", "36", "1", "1.4", "0.985"],
    ]


def test_json_alone_is_on_stdout(calr: Calr, theirs: Path) -> None:
    imported = calr("labels", "import", theirs, "-d", "veri", "--json", "--output", "in/l.csv").json
    assert (imported["images"], imported["local_labels"]) == (72, "in/l.csv")
    assert calr("labels", "score", theirs, "--json").json["weighted"]["num_images"] == 72
    assert calr("labels", "diff", theirs, "in/l.csv", "--json").json["moved"] == 0


def test_score_says_what_it_leaves_out_and_where_identities_come_from(calr: Calr, theirs: Path) -> None:
    (theirs / "cam2" / "pseudo_label.npy").unlink()
    by_dataset = calr("labels", "score", theirs, "-d", "veri", "--quiet")
    assert by_dataset.stderr == "warning: 24 training images of veri have no label: they are left out\n"
    by_names = calr("labels", "score", theirs)
    assert by_names.stderr == "identities: the numbers that the file names start with\n"


def test_import_wants_a_dataset_a_new_file_and_every_image(calr: Calr, theirs: Path, folder: Path) -> None:
    assert calr("labels", "import", theirs).errors[0].startswith("error: which dataset? None was given. ")
    (folder / "local_labels.csv").write_text("mine")
    refused = calr("labels", "import", theirs, "-d", "veri")
    assert refused.errors[0].startswith("error: local_labels.csv exists already. ")
    assert (folder / "local_labels.csv").read_text() == "mine"
    (theirs / "cam2" / "pseudo_label.npy").unlink()
    partial = calr("labels", "import", theirs, "-d", "veri", "--output", "l.csv")
    assert partial.exit_code == 1
    assert "has no label for 24 of the 72 training images, of camera 1: " in partial.errors[0]
    assert not (folder / "l.csv").exists()


@pytest.mark.e2e
def test_stage_2_takes_the_released_form(calr: Calr, theirs: Path, folder: Path) -> None:
    small = [*("--pretrained", "none", "-a", "resnet18", "--height", "32", "--width", "32", "--epochs", "1")]
    few = ["--iters", "2", "-b", "16", "--num-instances", "4", "--set", "inter.clustering.k=5"]
    answer = calr("train-inter", "-d", "veri", *small, *few, "--local-labels", theirs, "--output", "run")
    assert answer.exit_code == 0, answer.stderr
    agreement = calr("labels", "diff", theirs, "run/local_labels.csv", "--json").json
    assert (agreement["images"], agreement["only_first"], agreement["moved"]) == (72, 0, 0)
