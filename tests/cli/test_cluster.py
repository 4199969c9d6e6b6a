"""``calr cluster`` as its users type it."""

from __future__ import annotations

import csv
import errno
import os
from pathlib import Path

import pytest
import torch

from calr_cli.models.encoder import Encoder
from calr_cli.training.checkpoint import ModelCard, save_model
from tests.cli.conftest import Calr
from tests.support.made_up import write_image

CARD = ModelCard("veri", "inter", 1, "resnet18", "avg", 32, 32)
CLUSTER = ("cluster", "--resume", "m.pth", "--device", "cpu")
MANY = ("--num-identities", "3", "--min-images", "1")


@pytest.fixture(autouse=True)
def photos(folder: Path) -> None:
    """Four images of each of three identities by two cameras, one of them twice, and one that is none."""
    torch.manual_seed(0)
    save_model(folder / "m.pth", Encoder("resnet18", "avg"), CARD)
    for n in range(12):
        place = folder / "photos" / f"cam{n % 2}"
        place.mkdir(parents=True, exist_ok=True)
        write_image(place / f"{n // 4}_{n}.png", n // 4, seed=n)
    (folder / "photos/cam1/again.png").write_bytes((folder / "photos/cam0/0_0.png").read_bytes())
    (folder / "photos/bad.jpg").write_bytes(b"no image")


def here() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_of_identities(calr: Calr) -> None:
    Path("out").mkdir()
    answer = calr(*CLUSTER, "photos", "--pattern", "cam(?P<camid>.)", "--output", "out/ids.csv", *MANY)
    assert answer.exit_code == 0, answer.stderr
    table = rows("out/ids.csv")
    assert list(table[0]) == ["path", "identity", "camera", "confidence", "outlier", "duplicate_of"]
    assert table[0]["path"] == "../photos/cam0/0_0.png", "as seen from the table"
    assert {row["identity"] for row in table} == {"0", "1", "2"}
    assert {(row["path"].split("/")[2], row["camera"]) for row in table} == {("cam0", "0"), ("cam1", "1")}
    assert [row["path"] for row in table if row["duplicate_of"] == "../photos/cam0/0_0.png"] == [
        "../photos/cam1/again.png"
    ]
    lines = [line.split() for line in answer.stdout.splitlines()]
    assert lines[0] == ["table", "images", "identities", "outliers", "duplicates", "largest"]
    assert lines[1][:5] == ["out/ids.csv", "13", "3", "0", "1"]
    assert "of nearest neighbours are of the same camera (by chance 46 %)" in answer.stdout
    assert "warning: photos/bad.jpg: cannot be read (not an image): left out" in answer.stderr


def test_a_table_knows_cameras_and_the_features_are_kept(calr: Calr) -> None:
    names = sorted(str(path.relative_to("photos")) for path in Path("photos").rglob("*.png"))
    lines = "\n".join(f"{name},{'gate' if 'cam0' in name else 'yard'}" for name in names)
    Path("photos/list.csv").write_text(f"path,camid\n{lines}\n", encoding="utf-8")
    calr(*CLUSTER, "photos/list.csv", "--output", "ids.csv", *MANY)
    assert {row["camera"] for row in rows("ids.csv")} == {"gate", "yard"}
    again = calr(*CLUSTER, "photos/list.csv", "--output", "ids.csv", "--num-identities", "4", "--json")
    assert "images: 13 images, features of 13 are kept" in again.stderr
    assert again.json["failed"] == []


def test_a_prepared_dataset_and_its_identities(calr: Calr, veri: str) -> None:
    answer = calr(*CLUSTER, "-d", veri, "--split", "test", "--output", "ids.csv", "--json")
    quality = answer.json["quality"]
    assert quality["num_images"] == answer.json["images"] == len(rows("ids.csv"))
    assert quality["num_identities"] == 6
    assert answer.json["cameras"]["same_camera"] > 0
    shown = calr(*CLUSTER, "-d", veri, "--split", "test", "--output", "ids.csv").stdout.split()
    assert {"BCubed", "NMI", f"{quality['bcubed_f']:.3f}"} <= set(shown)


def test_the_settings_of_training(calr: Calr, veri: str) -> None:
    training = (*CLUSTER, "-d", veri, "--split", "train", "--output", "ids.csv", "--json")
    found = calr(*training, "--set", "inter.clustering.min_similarity=0.999999", "--min-images", "1")
    assert found.json["outliers"] == found.json["images"]
    one = calr(*training, "--set", "inter.clustering.min_similarity=0", "--set", "inter.clustering.k=72")
    assert one.json["identities"] == 1


@pytest.mark.parametrize("copy", [False, True])
def test_a_folder_for_each_identity(calr: Calr, copy: bool) -> None:
    before = {path: path.read_bytes() for path in Path("photos").rglob("*.*")}
    (Path("photos/cam0") / "more").mkdir()
    write_image(Path("photos/cam0/more/0_0.png"), 0, seed=99)  # of a name that is there already
    flags = ("--folders", "sorted", *(["--copy"] if copy else []))
    answer = calr(*CLUSTER, "photos", "--output", "ids.csv", *flags, *MANY)
    assert answer.exit_code == 0, answer.stderr
    made = list(Path("sorted").rglob("*.png"))
    assert len(made) == 14
    assert all(path.is_symlink() != copy for path in made)
    where = {os.path.realpath(path): path.parent.name for path in made}
    if not copy:
        assert where == {
            os.path.realpath(row["path"]): f"{int(row['identity']):04}" for row in rows("ids.csv")
        }
    assert {path: path.read_bytes() for path in before} == before
    assert here() == ["ids.csv", "m.pth", "photos", "sorted"]
    again = calr(*CLUSTER, "photos", "--output", "ids.csv", *flags, *MANY)
    assert again.errors == [
        "error: --folders sorted is there already. Give a new folder: calr deletes nothing"
    ]


def test_a_full_disk_leaves_no_half_folder(calr: Calr, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr("calr_cli.use.identity_files.shutil.copyfile", full)
    answer = calr(*CLUSTER, "photos", "--output", "ids.csv", "--folders", "sorted", "--copy", *MANY)
    assert answer.errors == ["error: sorted: No space left on device"]
    assert here() == ["ids.csv", "m.pth", "photos"]


def test_a_page(calr: Calr) -> None:
    answer = calr(*CLUSTER, "photos", "--output", "ids.csv", "--html", "ids.html", *MANY)
    assert answer.exit_code == 0, answer.stderr
    page = Path("ids.html").read_text(encoding="utf-8")
    assert "3 identities in 13 images" in page
    titles = [part.partition("</h2>")[0] for part in page.split("<h2>")[1:]]
    assert titles == ["Largest", "Least sure", "Perhaps one identity in two"], "no others are left"
    assert "http" not in page


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ([], "which images? Give IMAGES, or -d NAME, and not both"),
        (["photos", "--split", "test"], "--split is for -d NAME, which is not given"),
        (["-d", "veri", "--split", "query"], "--split query is none of all, train, test"),
        (["photos", "--copy"], "--copy is for --folders DIR, which is not given"),
        (["photos", "--same", "80"], "--same 80 is not a probability. Write for instance --same 80%"),
        (
            ["photos", "--same", "80%"],
            "--same 80%: this model is not calibrated, it has no probabilities. Calibrate it: "
            "calr evaluate --calibrate --resume m.pth, or leave --same out",
        ),
        (
            ["photos", "--same", "80%", "--num-identities", "3"],
            "--same and --num-identities contradict each other: give one of them",
        ),
        (
            ["photos", "--recipe", "plus", "--num-identities", "3"],
            "--num-identities and the clusters of training (recipe plus) contradict each other. Give one of "
            "them",
        ),
        (
            ["photos", "--num-identities", "99"],
            "--num-identities 99: there are only 13 images. Give a lower number",
        ),
        (
            ["photos", "--folders", "photos/sorted"],
            "--folders photos/sorted lies in photos, whose images are read: the next time its links would be "
            "images too. Give a folder elsewhere",
        ),
        (
            ["photos", "--folders", "photos"],
            "--folders photos is there already. Give a new folder: calr deletes nothing",
        ),
        (
            ["photos", "--per-camera"],
            "--per-camera: no camera of the images is known. Give --pattern with a group camid, such as "
            "'cam(?P<camid>\\d+)', or a table with a column camid",
        ),
        (["photos/none"], "photos/none: no such file. There is no image that can be read"),
    ],
)
def test_what_cannot_be_done(calr: Calr, flags: list[str], error: str) -> None:
    answer = calr(*CLUSTER, *flags, "--output", "ids.csv")
    assert (answer.exit_code, answer.errors) == (1, [f"error: {error}"])
    assert here() == ["m.pth", "photos"], "nothing is left behind"


def test_a_table_of_the_users_own_is_not_overwritten(calr: Calr) -> None:
    Path("mine.csv").write_text("path,name\nphotos/cam0/0_0.png,Ada\n", encoding="utf-8")
    answer = calr(*CLUSTER, "photos", "--output", "mine.csv")
    assert answer.errors == [
        "error: --output mine.csv is there, and it is no table of identities: it would be lost. Give another "
        "name, or delete it"
    ]
    assert "Ada" in Path("mine.csv").read_text(encoding="utf-8")
