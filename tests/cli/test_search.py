"""``embed``, ``search`` and ``compare`` as their users type them."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from calr_cli.evaluation.calibration import Calibration, Reliability
from calr_cli.models.encoder import Encoder
from calr_cli.training.checkpoint import ModelCard, save_model
from tests.cli.conftest import Calr
from tests.support.foreign import Network, spcl
from tests.support.made_up import write_image

CARD = ModelCard("veri", "inter", 1, "resnet18", "avg", 32, 32)
CALIBRATION = Calibration(
    50.0, -48.0, "identities", "veri", 100, 1000, 2.0, Reliability((0.5,), (0.5,), (1.0,))
)

NOT_CALIBRATED = (
    "this model is not calibrated: similarities only. "
    "To calibrate it: calr evaluate --calibrate --resume m.pth"
)


@pytest.fixture(autouse=True)
def photos(folder: Path) -> None:
    """Model ``m.pth``, ``calibrated.pth``, three images of each of two identities, and two bad files."""
    torch.manual_seed(0)
    encoder = Encoder("resnet18", "avg")
    save_model(folder / "m.pth", encoder, CARD)
    save_model(folder / "calibrated.pth", encoder, replace(CARD, calibration=CALIBRATION.to_dict()))
    (folder / "photos").mkdir()
    for n in range(6):
        write_image(folder / "photos" / f"{n // 3}-{n % 3}.png", n // 3, seed=n)
    (folder / "photos/bad.jpg").write_bytes(b"no image")
    write_image(folder / "query <b>.png", 0, seed=9)


def test_embed(calr: Calr) -> None:
    answer = calr("embed", "--resume", "m.pth", "query <b>.png", "photos", "no.jpg", "--output", "f.npz")
    assert answer.exit_code == 0
    assert [line.split() for line in answer.stdout.splitlines()] == [
        ["features", "images", "dimensions", "failed"],
        ["f.npz", "7", "512", "2"],
    ]
    assert "warning: photos/bad.jpg: cannot be read (not an image): left out" in answer.stderr
    assert "warning: no.jpg: no such file: left out" in answer.stderr
    with np.load("f.npz") as arrays:
        assert arrays["paths"].tolist()[:3] == ["query <b>.png", "photos/0-0.png", "photos/0-1.png"]
        assert arrays["features"].shape == (7, 512)


@pytest.mark.parametrize("output", ["f.csv", "f.parquet"])
def test_embed_for_scripts(calr: Calr, output: str) -> None:
    answer = calr("embed", "--resume", "m.pth", "photos", "--output", output, "--json", "--device", "cpu")
    problem = "photos/bad.jpg: cannot be read (not an image)"
    assert answer.json == {"output": output, "images": 6, "dim": 512, "failed": [problem]}
    assert Path(output).exists()


def test_search_without_calibration(calr: Calr) -> None:
    search = ("search", "--resume", "m.pth", "--gallery", "photos", "query <b>.png", "-k", "2")
    answer = calr(*search)
    assert NOT_CALIBRATED in answer.stderr.splitlines()
    query, head, first, second = (line.split() for line in answer.stdout.splitlines())
    assert query == ["query:", "query", "<b>.png"]
    assert head == ["rank", "similarity", "probability", "same", "image"]
    assert [first[0], second[0]] == ["1", "2"]
    assert first[2:4] == ["-", "-"]
    limited = calr(*search, "--threshold", "0.5", "--json").json
    assert limited["threshold"] == 0.5
    assert [found["same"] for found in limited["queries"][0]["results"]] == [True, True]
    assert limited["queries"][0]["results"][0]["probability"] is None
    unknown = calr(*search, "--threshold", "1")
    assert unknown.stdout.splitlines()[:2] == ["query: query <b>.png", "unknown: nothing reaches 1.000"]


def test_search_with_calibration(calr: Calr) -> None:
    calr("embed", "--resume", "calibrated.pth", "photos", "--output", "f.npz")
    search = ("search", "--resume", "calibrated.pth", "--gallery", "f.npz", "query <b>.png", "--json")
    answer = calr(*search)
    (line,) = (line for line in answer.stderr.splitlines() if line.startswith("probabilities: "))
    expected = "from identities of veri; before looking, two images show the same with 33 %"
    assert line == f"probabilities: {expected}"
    result = answer.json
    prior = CALIBRATION.prior_of_search(6)
    assert (result["prior"], result["images"]) == (prior, 6)
    assert result["threshold"] == CALIBRATION.similarity_at(0.5, prior)
    results = result["queries"][0]["results"]
    assert len(results) == 6
    for found in results:
        assert found["probability"] == pytest.approx(CALIBRATION.probability(found["similarity"], prior))
        assert found["same"] == (found["probability"] >= 0.5)
    surer = calr(*search, "--threshold", "60%").json
    assert surer["threshold"] == CALIBRATION.similarity_at(0.6, prior) > result["threshold"]


def test_a_probability_that_no_similarity_has(calr: Calr) -> None:
    """The same file is in the gallery, so that "unknown" would be wrong: there is no verdict."""
    search = ("search", "--resume", "calibrated.pth", "--gallery", "photos", IMAGE, "--threshold", "90%")
    answer = calr(*search, "--json", "--quiet")
    assert answer.stderr.splitlines()[-1] == (
        "warning: no similarity makes it 90.0 % probable that two images show the same: before looking it is "
        "33 %, and even a similarity of 1 makes it 78.7 %. Nothing is called the same or unknown by it. "
        "Take a similarity such as 0.6 as the threshold, or a lower probability"
    )
    (query,) = answer.json["queries"]
    assert (answer.json["threshold"], query["unknown"], query["results"][0]["same"]) == (None, None, None)
    assert query["results"][0]["path"] == IMAGE
    assert "unknown" not in calr(*search).stdout
    compared = calr("compare", "--resume", "calibrated.pth", IMAGE, IMAGE, "--threshold", "99%", "--json")
    assert "warning: no similarity makes it 99.0 % probable" in compared.stderr
    assert (compared.json["verdict"], compared.json["threshold"]) == (None, None)


def test_an_image_is_the_same_as_itself(calr: Calr) -> None:
    """Rounding gives similarities of .9999999 and 1.0000001."""
    for name in sorted(str(path) for path in Path("photos").glob("*.png")):
        compared = calr("compare", "--resume", "m.pth", name, name, "--threshold", "1", "--json").json
        assert compared["verdict"] == "same"
        assert 0.99999 < compared["similarity"] <= 1
    found = calr(
        "search", "--resume", "m.pth", "--gallery", "photos", IMAGE, "--threshold", "1", "--json"
    ).json
    assert found["queries"][0]["unknown"] is False
    assert found["queries"][0]["results"][0]["similarity"] <= 1


def test_compare(calr: Calr) -> None:
    compare = ("compare", "--resume", "calibrated.pth", "photos/0-0.png", "photos/0-1.png")
    answer = calr(*compare, "--json")
    result = answer.json
    assert "before looking, two images show the same with 50 %" in answer.stderr
    assert result["probability"] == pytest.approx(CALIBRATION.probability(result["similarity"]))
    assert result["verdict"] == ("same" if result["probability"] >= 0.5 else "different")
    assert calr(*compare, "--json", "--threshold", "-1").json["verdict"] == "same"
    head, row = (line.split() for line in calr(*compare, "--threshold", "1").stdout.splitlines())
    assert head == ["similarity", "probability", "threshold", "verdict"]
    assert row == [
        f"{result['similarity']:.3f}",
        f"{100 * result['probability']:.1f}",
        "%",
        "1.000",
        "different",
    ]
    plain = calr("compare", "--resume", "m.pth", "photos/0-0.png", "photos/0-1.png")
    assert NOT_CALIBRATED in plain.stderr
    assert plain.stdout.split()[-3:] == ["-", "-", "-"]


class Pictures(HTMLParser):
    """Sources and alternative texts, and whatever tag is not the page's own."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.tags: set[str] = set()
        self.sources: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = {name: str(value) for name, value in attrs}
        if tag == "image":
            self.sources[f"#{values['id']}"] = values["href"]
        elif tag == "svg" and values.get("role") == "img":
            self.alt = values["aria-label"]
        elif tag == "use":
            self.found.append((self.sources[values["href"]], self.alt))


@pytest.mark.parametrize(("model", "flags"), [("m.pth", []), ("calibrated.pth", ["--threshold", "1"])])
def test_the_page(calr: Calr, model: str, flags: list[str]) -> None:
    """Works offline, says everything in words, and a file name is never a tag."""
    search = ("search", "--resume", model, "--gallery", "photos", "query <b>.png", "--html", "out.html")
    answer = calr(*search, "-k", "2", *flags)
    assert "out.html" in answer.stdout
    page = Path("out.html").read_text(encoding="utf-8")
    pictures = Pictures(page)
    assert "b" not in pictures.tags
    assert len(pictures.found) == 3
    assert all(source.startswith("data:image/jpeg;base64,") for source, _ in pictures.found)
    assert pictures.found[0][1] == "query query <b>.png"
    assert pictures.found[1][1].startswith("rank 1: photos/")
    assert "http" not in page.replace("http-equiv", "")
    assert ("unknown, nothing reaches the threshold" in page) == bool(flags)
    assert ("probability" in page) == (model == "calibrated.pth")


def test_the_page_of_images_that_are_elsewhere(calr: Calr) -> None:
    """Features may have been made on another machine."""
    calr("embed", "--resume", "m.pth", "photos", "--output", "f.npz")
    Path("photos").rename("elsewhere")
    search = ("search", "--resume", "m.pth", "--gallery", "f.npz", "query <b>.png", "--html", "out.html")
    assert calr(*search, "-k", "1").exit_code == 0
    assert Path("out.html").read_text(encoding="utf-8").count("no image here") == 1


def test_a_model_of_another_program(calr: Calr) -> None:
    torch.save(spcl(Network("resnet18")).content, "theirs.pth.tar")
    size = ("--height", "64", "--width", "32")
    answer = calr("compare", "--resume", "theirs.pth.tar", "photos/0-0.png", "photos/1-0.png", *size)
    assert answer.exit_code == 0
    assert "by the names of SpCL" in answer.stderr
    assert "input 64 x 32 (--height, --width), which the file does not say" in answer.stderr


IMAGE = "photos/0-0.png"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["embed", "--resume", "no.pth", IMAGE, "--output", "f.npz"], "no file no.pth here"),
        (["embed", "--resume", "m.pth", IMAGE, "--output", "f.txt"], "--output f.txt: the name must end in"),
        (["embed", "--resume", "m.pth", "photos/bad.jpg", "--output", "f.npz"], "photos/bad.jpg: cannot be"),
        (["embed", "--resume", "m.pth", IMAGE, "-a", "resnet50", "--output", "f.npz"], "m.pth has arch res"),
        (
            ["embed", "--resume", "m.pth", IMAGE, "-b", "0", "--output", "f.npz"],
            "evaluation.batch_size = 0 (-",
        ),
        (["search", "--resume", "m.pth", "--gallery", "nowhere", IMAGE], "no gallery nowhere. Give a folder"),
        (["search", "--resume", "m.pth", "--gallery", "m.npz", IMAGE], "no gallery m.npz. Give a folder"),
        (
            ["search", "--resume", "m.pth", "--gallery", "photos", IMAGE, "--threshold", "90%"],
            "--threshold 90%: this model is not calibrated, it has no probabilities. Give a similarity",
        ),
        (
            ["search", "--resume", "m.pth", "--gallery", "photos", IMAGE, "--threshold", "60"],
            "--threshold 60 is neither a similarity from -1 to 1 nor a probability such as 90%",
        ),
        (["compare", "--resume", "m.pth", IMAGE, "photos/bad.jpg"], "photos/bad.jpg: cannot be read (not an"),
        (
            ["compare", "--resume", "calibrated.pth", IMAGE, IMAGE, "--threshold", "100%"],
            "--threshold 100% is",
        ),
    ],
)
def test_what_cannot_be_done(calr: Calr, arguments: list[str], line: str) -> None:
    answer = calr(*arguments)
    assert (answer.exit_code, answer.stdout, len(answer.errors)) == (1, "", 1)
    assert answer.errors[0].startswith(f"error: {line}")
    assert not list(Path().glob("f.*"))


def test_a_calibration_of_another_version(calr: Calr) -> None:
    save_model(Path("new.pth"), Encoder("resnet18", "avg"), replace(CARD, calibration={"spline": [1, 2]}))
    answer = calr("compare", "--resume", "new.pth", IMAGE, IMAGE)
    assert answer.errors == [
        "error: new.pth has a calibration of another version of calr. Calibrate it again"
    ]


def test_per_camera(calr: Calr) -> None:
    """With its own cameras, in memory and from a file; and not with what it cannot be mixed with."""
    for n in range(40):
        write_image(Path("photos") / f"cam{n % 2}_{n}.png", n // 4, seed=n)
    names = sorted(str(path) for path in Path("photos").glob("cam*.png"))
    flags = ("--pattern", "cam(?P<camid>.)", "--per-camera", "--json", "--threshold", "0.5")
    search = ("search", "--resume", "calibrated.pth", names[0], *flags)
    calr("embed", "--resume", "calibrated.pth", *names, "--output", "plain.npz")
    table = "".join(f"{name},{name[10]}\n" for name in names)
    Path("list.csv").write_text(f"path,camid\n{table}", encoding="utf-8")
    answers = [calr(*search, "--gallery", gallery) for gallery in ("plain.npz", "list.csv")]
    one, other = (answer.json["queries"][0]["results"] for answer in answers)
    assert [found["path"] for found in one] == [found["path"] for found in other]
    assert {found["probability"] for found in one} == {None}
    assert "--per-camera: similarities only, a model is calibrated without it" in answers[0].stderr
    embed = ("embed", "--resume", "calibrated.pth", "list.csv", "--output", "shifted.npz")
    assert calr(*embed, "--per-camera").exit_code == 0
    with np.load("shifted.npz") as file:
        similarities = file["features"] @ file["features"][0]
    assert [found["similarity"] for found in one] == pytest.approx(sorted(similarities)[::-1][:10], abs=1e-5)
    assert calr(*search, "--gallery", "shifted.npz").errors == [
        "error: shifted.npz has features standardised by camera: queries cannot be made like them. Embed "
        "without --per-camera, and give --per-camera to search"
    ]
    assert calr("embed", "--resume", "m.pth", "photos", "--output", "x.npz", *flags[:2]).errors == [
        "error: --pattern is for --per-camera, which is not given"
    ]
