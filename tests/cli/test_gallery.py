"""``calr gallery`` as its users type it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from calr_cli.models.encoder import Encoder
from calr_cli.training.checkpoint import ModelCard, save_model
from tests.cli.conftest import Calr
from tests.cli.test_search import CALIBRATION
from tests.support.made_up import write_image

CARD = ModelCard("veri", "inter", 1, "resnet18", "avg", 32, 32)
SHOP = "shop.gallery"


@pytest.fixture(autouse=True)
def photos(folder: Path, calr: Calr) -> None:
    """A gallery with images of Ada (identity 0) and somebody (1); images of both and of a third one."""
    torch.manual_seed(0)
    encoder = Encoder("resnet18", "avg")
    save_model(folder / "m.pth", encoder, replace(CARD, calibration=CALIBRATION.to_dict()))
    save_model(folder / "plain.pth", encoder, CARD)
    for who in range(3):
        for n in range(3):
            path = folder / f"{'old' if n < 2 and who < 2 else 'today'}" / f"{who}-{n}.png"
            path.parent.mkdir(exist_ok=True)
            write_image(path, who, seed=n)
    assert calr("gallery", "create", SHOP, "--resume", "m.pth").exit_code == 0
    added = calr("gallery", "add", SHOP, "old/0-0.png", "old/0-1.png", "--name", "Ada", "--json")
    assert (added.json["added"], added.json["identities"]) == (2, [1])
    assert calr("gallery", "add", SHOP, "old/1-0.png", "old/1-1.png", "--name", "Bob").exit_code == 0


def between(calr: Calr) -> str:
    """A similarity above those of two identities and below those of one."""
    pairs = [
        ("old/0-0.png", "today/0-2.png"),
        ("old/0-0.png", "today/1-2.png"),
        ("today/2-0.png", "old/1-0.png"),
    ]
    same, *others = (
        calr("compare", "--resume", "m.pth", *pair, "--json").json["similarity"] for pair in pairs
    )
    assert same > max(others)
    return str((same + max(others)) / 2)


def test_who_is_it(calr: Calr) -> None:
    least = between(calr)
    answer = calr("gallery", "assign", SHOP, "today", "--threshold", least, "--json")
    said = [(row["path"], row["identity"], row["name"], row["new"]) for row in answer.json["images"]]
    assert said == [
        ("today/0-2.png", 1, "Ada", None),
        ("today/1-2.png", 2, "Bob", None),
        *((f"today/2-{n}.png", None, None, 1) for n in range(3)),
    ], "the three images of a stranger are one stranger"
    first = answer.json["images"][0]
    prior = CALIBRATION.prior_of_search(4)
    assert first["probability"] == pytest.approx(CALIBRATION.probability(first["similarity"], prior))
    assert [line.split()[1] for line in calr("gallery", "list", SHOP).stdout.splitlines()[1:]] == [
        "Ada",
        "Bob",
    ]
    kept = calr("gallery", "assign", SHOP, "today", "--threshold", least, "--add")
    assert [line.split()[0] for line in kept.stdout.splitlines()[1:]] == ["1", "2", "3", "3", "3"]
    listed = calr("gallery", "list", SHOP, "--json").json["identities"]
    assert [(one["number"], one["images"]) for one in listed] == [(1, 3), (2, 3), (3, 3)]
    again = calr("gallery", "assign", SHOP, "today", "--threshold", least, "--json")
    assert [row["identity"] for row in again.json["images"]] == [1, 2, 3, 3, 3]


def test_the_images_of_a_track_are_assigned_together(calr: Calr) -> None:
    """One of them alone would be somebody new."""
    least = between(calr)
    rows = "".join(
        f"today/{name}.png,{track}\n" for name, track in [("0-2", "a"), ("2-0", "b"), ("2-1", "b")]
    )
    Path("tracks.csv").write_text(f"path,track\n{rows}old/0-0.png,a\n", encoding="utf-8")
    answer = calr("gallery", "assign", SHOP, "tracks.csv", "--threshold", least, "--json").json["images"]
    assert [(row["path"], row["identity"], row["new"]) for row in answer] == [
        ("today/0-2.png", 1, None),
        ("old/0-0.png", 1, None),
        ("today/2-0.png", None, 1),
        ("today/2-1.png", None, 1),
    ]
    assert answer[0]["similarity"] == answer[1]["similarity"]


def test_the_table_of_cluster_becomes_a_gallery(calr: Calr) -> None:
    calr("gallery", "create", "new.gallery", "--resume", "m.pth")
    cluster = ("cluster", "--resume", "m.pth", "old", "today", "--output", "ids.csv", "--num-identities", "3")
    assert calr(*cluster, "--min-images", "1").exit_code == 0
    assert calr("gallery", "add", "new.gallery", "ids.csv", "--json").json["added"] == 9
    listed = calr("gallery", "list", "new.gallery", "--json").json["identities"]
    assert sum(one["images"] for one in listed) == 9
    assert len(listed) == 3


def test_search_opens_it(calr: Calr) -> None:
    answer = calr("search", "--resume", "m.pth", "--gallery", SHOP, "today/0-2.png", "-k", "2", "--json")
    assert {found["path"] for found in answer.json["queries"][0]["results"]} == {"old/0-0.png", "old/0-1.png"}
    calr("embed", "--resume", "m.pth", "old", "--output", "old.npz")
    file = calr("search", "--resume", "m.pth", "--gallery", "old.npz", "today/0-2.png", "-k", "2", "--json")
    values = [found["similarity"] for found in file.json["queries"][0]["results"]]
    assert [found["similarity"] for found in answer.json["queries"][0]["results"]] == pytest.approx(values)


def test_merge_split_rename_and_forget(calr: Calr) -> None:
    pairs = calr("gallery", "merge", SHOP, "--json").json["pairs"]
    assert [(pair["identity"], pair["other"]) for pair in pairs] == [(1, 2)]
    assert calr("gallery", "merge", SHOP, "Ada", "Bob").stdout == "[2] are identity 1 now\n"
    assert calr("gallery", "split", SHOP, "1").stdout == "2 images of identity 1 are identity 3 now\n"
    shown = calr("gallery", "show", SHOP, "3", "--json", "--html", "three.html").json["images"]
    assert len({Path(row["path"]).name[0] for row in shown}) == 1, "the two that were one by mistake"
    assert Path("three.html").read_text(encoding="utf-8").count("data:image/jpeg") == 2
    assert calr("gallery", "rename", SHOP, "3", "Eve").stdout == "identity 3 is Eve now\n"
    assert calr("gallery", "split", SHOP, "Eve", "--image", shown[0]["path"]).exit_code == 0
    forgotten = calr("gallery", "forget", SHOP, "Eve").stdout
    assert forgotten == "identity 3 and its 1 images are forgotten; image files stay where they are\n"
    assert b"Eve" not in Path(SHOP).read_bytes()
    listed = calr("gallery", "list", SHOP, "--json").json["identities"]
    assert [(one["number"], one["images"]) for one in listed] == [(1, 2), (4, 1)]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            ["create", SHOP, "--resume", "m.pth"],
            f"{SHOP} is there already. Give another name, or add to it: calr gallery add",
        ),
        (["create", "shop.txt", "--resume", "m.pth"], "GALLERY shop.txt: the name must end in .gallery"),
        (["list", "no.gallery"], "no gallery no.gallery. Make one: calr gallery create no.gallery"),
        (["list", "m.pth"], "m.pth is not a gallery of calr. Give a file of `calr gallery create`"),
        (["forget", SHOP, "Eve"], f"{SHOP} has no identity Eve. calr gallery list {SHOP} shows all of them"),
        (["merge", SHOP, "Ada"], "merge needs two identities or more. Give the others, too"),
        (
            ["rename", SHOP, "1", "Bob"],
            f"Bob is the name of identity 2 already. Give another name, or make them one: calr gallery merge "
            f"{SHOP} 2 1",
        ),
        (
            ["split", SHOP, "1", "--image", "x.png"],
            f"identity 1 has no image x.png. calr gallery show {SHOP} 1 lists them",
        ),
        (
            ["add", SHOP, "today"],
            "who is on these images? Neither --name nor a column identity says it. Give one of them; "
            f"`calr gallery assign {SHOP} --add` finds out by itself",
        ),
        (
            ["add", SHOP, "today", "--name", "9"],
            f"{SHOP} has no identity 9. calr gallery list {SHOP} shows all of them",
        ),
        (["assign", SHOP, "no.png"], "no.png: no such file. There is no image that can be read"),
    ],
)
def test_what_cannot_be_done(calr: Calr, words: list[str], error: str) -> None:
    before = Path(SHOP).read_bytes()
    answer = calr("gallery", *words)
    assert (answer.exit_code, answer.errors) == (1, [f"error: {error}"])
    assert Path(SHOP).read_bytes() == before


def test_another_model_and_one_without_calibration(calr: Calr, folder: Path) -> None:
    torch.manual_seed(1)
    save_model(folder / "other.pth", Encoder("resnet18", "avg"), CARD)
    refused = (
        f"error: {SHOP} was made with another model, or with another input size. Give --resume with the "
        f"model that made it; it was {folder / 'm.pth'}"
    )
    for words in (
        ["gallery", "assign", SHOP, "today", "--resume", "other.pth"],
        ["gallery", "add", SHOP, "today", "--name", "Eve", "--resume", "other.pth"],
        ["search", "--gallery", SHOP, "today", "--resume", "other.pth"],
    ):
        assert calr(*words).errors == [refused]
    assert calr("gallery", "assign", SHOP, "today", "--resume", "plain.pth").errors == [
        "error: from which similarity on is somebody known? This model is not calibrated. Give --threshold, "
        "such as 0.6, or calibrate it: calr evaluate --calibrate --resume plain.pth"
    ]
    assert (
        calr("gallery", "assign", SHOP, "today", "--resume", "plain.pth", "--threshold", "0.5").exit_code == 0
    )
