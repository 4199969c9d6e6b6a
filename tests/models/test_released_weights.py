from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path

import pytest
import torch

from calr_cli.downloads import DriveFolderFile
from calr_cli.errors import ConfigError, WeightsError
from calr_cli.models.backbones import ARCHS, TINY
from calr_cli.models.encoder import Encoder
from calr_cli.models.network_check import VitCheck, shapes
from calr_cli.models.pretrained import load_pretrained
from calr_cli.models.released_weights import (
    RELEASES,
    Release,
    adopt_pretrained,
    cached_weights,
    fetch_pretrained,
)
from calr_cli.models.vit import VITS
from tests.support.heard import Heard
from tests.support.pretraining import dino
from tests.support.site import Site, folder_page, page, ranges, stand_in_for_drive, status
from tests.support.small_vits import SMALL_VITS

CONTENT = bytes(range(256)) * 800
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = f"tiny-{SHA256[:8]}.pth"
OLDER = "tiny.pth.tar"


def publish(
    monkeypatch: pytest.MonkeyPatch, url: str, older: DriveFolderFile | None = None, sha256: str = SHA256
) -> None:
    monkeypatch.setitem(RELEASES, "resnet18", Release(url, sha256, older=older))


@pytest.fixture
def cache(calr_home: Path) -> Path:
    return calr_home / "weights"


@pytest.mark.parametrize("digits", [8, 64])
def test_fetches_and_then_finds(
    cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch, digits: int
) -> None:
    publish(monkeypatch, site.put(f"/{NAME}", ranges(CONTENT)), sha256=SHA256[:digits])
    heard = Heard()
    path = fetch_pretrained("resnet18", heard)
    assert path == cache / NAME
    assert path.read_bytes() == CONTENT
    assert list(cache.iterdir()) == [path]
    assert heard.steps == [f"downloading {NAME}: {len(CONTENT)} bytes"]
    assert fetch_pretrained("resnet18", heard) == cached_weights("resnet18") == path
    assert len(site.asked) == 1


def test_replaces_a_damaged_file(cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, site.put(f"/{NAME}", ranges(CONTENT)))
    cache.mkdir(parents=True)
    (cache / NAME).write_text("damaged")
    with pytest.raises(WeightsError, match="the ImageNet weights of resnet18 are damaged"):
        cached_weights("resnet18")
    assert fetch_pretrained("resnet18", Heard()).read_bytes() == CONTENT


def test_does_not_download_what_torchvision_has(
    hub: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where ``TORCH_HOME`` says, which the tests set."""
    publish(monkeypatch, site.put(f"/{NAME}", status(404)))
    hub.mkdir(parents=True)
    (hub / NAME).write_bytes(CONTENT)
    assert fetch_pretrained("resnet18", Heard()) == hub / NAME
    assert site.asked == []


def test_finds_what_torchvision_has_without_torch_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    publish(monkeypatch, f"https://nowhere.invalid/{NAME}")
    path = tmp_path / "torch" / "hub" / "checkpoints" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert cached_weights("resnet18") == path


def test_a_damaged_file_of_torchvision_is_left_alone(
    hub: Path, cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, site.put(f"/{NAME}", ranges(CONTENT)))
    hub.mkdir(parents=True)
    (hub / NAME).write_text("cut short")
    assert fetch_pretrained("resnet18", Heard()) == cache / NAME
    assert (hub / NAME).read_text() == "cut short"


def test_mirrors_are_asked_first_and_in_order(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, site.put(f"/{NAME}", ranges(CONTENT)))
    site.put(f"/a/{NAME}", status(404))
    site.put(f"/b/weights/{NAME}", ranges(CONTENT[::-1]))
    fetch_pretrained("resnet18", Heard(), [f"{site.address}/a", f"{site.address}/b/weights/"])
    assert [path for path, _ in site.asked] == [f"/a/{NAME}", f"/b/weights/{NAME}", f"/{NAME}"]


def test_what_to_do_when_nobody_has_it(cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, url := site.put(f"/{NAME}", status(404)))
    with pytest.raises(WeightsError) as error:
        fetch_pretrained("resnet18", Heard())
    assert error.value.lines() == [
        f"{url} answers 404 Not Found. Try again later, or get {url} elsewhere and give it with: "
        "calr fetch-pretrained -a resnet18 --file FILE"
    ]
    assert not (cache / NAME).exists()


def test_cache_that_cannot_be_written(calr_home: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, site.put(f"/{NAME}", ranges(CONTENT)))
    calr_home.write_text("in the way")
    with pytest.raises(WeightsError, match=rf"^cannot write {calr_home}/weights/{NAME}: Not a directory\. "):
        fetch_pretrained("resnet18", Heard())


@pytest.fixture
def older(tmp_path: Path) -> bytes:
    """The form of the file on Google Drive: prefixed keys in a checkpoint."""
    state = {f"module.{key}": torch.zeros(shape) for key, shape in shapes("resnet18").items()}
    torch.save({"state_dict": state}, tmp_path / "older")
    return (tmp_path / "older").read_bytes()


def publish_older(site: Site, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    stand_in_for_drive(site, monkeypatch)
    publish(monkeypatch, site.put(f"/{NAME}", status(404)), DriveFolderFile("2" * 33, OLDER))
    site.put("/embeddedfolderview", page(folder_page({OLDER: "1" * 33})))
    site.put("/uc", ranges(content))


CAUTION = (
    f"{OLDER} has no published hash: it loads safely and its keys and shapes are those of resnet18, "
    f"but it may be of another training than {NAME}"
)


def test_the_older_file_is_the_last_resort_and_comes_with_a_warning(
    cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch, older: bytes
) -> None:
    publish_older(site, monkeypatch, older)
    heard = Heard()
    assert fetch_pretrained("resnet18", heard) == cache / OLDER
    assert (cache / OLDER).read_bytes() == older
    assert heard.warnings == [CAUTION]
    assert cached_weights("resnet18") == cache / OLDER

    (cache / NAME).write_bytes(CONTENT)
    assert cached_weights("resnet18") == cache / NAME


def test_an_older_file_of_another_network_is_refused(
    cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other")
    publish_older(site, monkeypatch, (tmp_path / "other").read_bytes())
    with pytest.raises(WeightsError) as error:
        fetch_pretrained("resnet18", Heard())
    first, second = error.value.problems
    assert first == f"{site.address}/{NAME} answers 404 Not Found"
    assert "is of another network than resnet18" in second
    assert second.endswith("nothing was kept")
    assert not any(cache.glob("[!.]*"))


def test_a_file_fetched_by_hand(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name does not matter."""
    publish(monkeypatch, f"https://nowhere.invalid/{NAME}")
    by_hand = tmp_path / "download(1)"
    by_hand.write_bytes(CONTENT)
    heard = Heard()
    assert adopt_pretrained("resnet18", by_hand, heard) == cache / NAME
    assert cached_weights("resnet18") == cache / NAME
    assert heard.warnings == []


def test_an_older_file_fetched_by_hand(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, older: bytes
) -> None:
    publish(monkeypatch, f"https://nowhere.invalid/{NAME}", DriveFolderFile("2" * 33, OLDER))
    heard = Heard()
    assert adopt_pretrained("resnet18", tmp_path / "older", heard) == cache / OLDER
    assert heard.warnings == [CAUTION]


def test_a_wrong_file_fetched_by_hand(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"https://nowhere.invalid/{NAME}"
    publish(monkeypatch, url, DriveFolderFile("2" * 33, OLDER))

    def refusal(path: Path) -> list[str]:
        with pytest.raises(WeightsError) as error:
            adopt_pretrained("resnet18", path, Heard())
        assert not cache.exists()
        return error.value.lines()

    hint = f"The right file is at {url}; weights of your own are for --pretrained FILE"
    wrong = tmp_path / "wrong.pth"
    wrong.write_bytes(b"")
    first, second = refusal(wrong)
    assert first.startswith(f"{wrong} has the wrong sha256: ")
    assert second == f"{wrong} is empty. {hint}"
    absent = tmp_path / "absent.pth"
    assert refusal(absent) == [f"no file {absent}. {hint}"]


def test_unknown_arch(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown arch 'vgg'"):
        fetch_pretrained("vgg", Heard())
    with pytest.raises(ConfigError, match="unknown arch 'vgg'"):
        adopt_pretrained("vgg", tmp_path / "x", Heard())


def test_a_network_without_published_weights(tmp_path: Path) -> None:
    for get in (cached_weights, lambda arch: fetch_pretrained(arch, Heard())):
        with pytest.raises(WeightsError) as error:
            get(TINY)
        assert error.value.lines() == [
            "nobody has published ImageNet weights of resnet_tiny. Start from random weights, "
            "--pretrained none, or from a file of your own, --pretrained FILE"
        ]
    with pytest.raises(WeightsError, match=r"^nobody has published"):
        adopt_pretrained(TINY, tmp_path / "x", Heard())


def test_every_arch_has_a_release_whose_name_starts_its_hash() -> None:
    assert set(RELEASES) == set(ARCHS) - {TINY}
    for release in RELEASES.values():
        if release.sha256 is None:
            continue
        assert release.url.startswith("https://")
        assert release.file_name.endswith(f"-{release.sha256[:8]}.pth")
        assert int(release.sha256, 16)
    assert len(RELEASES["resnet50"].sha256 or "") == 64
    assert RELEASES["resnet50"].file_name == "resnet50-0676ba61.pth"


def test_the_sizes_that_torchvision_gives_are_mebibytes() -> None:
    assert RELEASES["resnet50"].mebibytes == pytest.approx(102_530_333 / 2**20, abs=5e-4)
    assert [arch for arch, release in RELEASES.items() if release.mebibytes is None] == [
        "resnet_ibn50a",
        "resnet_ibn101a",
        *VITS,
    ]


@pytest.fixture
def of_persons(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A training's file of a vision transformer with few channels."""
    for arch, size in SMALL_VITS.items():
        monkeypatch.setitem(VITS, arch, size)
    buffer = BytesIO()
    torch.save(dino(dict(Encoder("vit_small", "cls").backbone.state_dict())), buffer)
    return buffer.getvalue()


LICENCE = "licence: weights: none stated (code: MIT)"


def test_vision_transformers_come_from_google_drive_with_a_warning(
    cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch, of_persons: bytes
) -> None:
    stand_in_for_drive(site, monkeypatch)
    site.put("/uc", ranges(of_persons))
    heard = Heard()
    path = fetch_pretrained("vit_small", heard)
    assert path == cache / "vit_small_cfs_lup.pth" == cached_weights("vit_small", "person")
    assert site.asked[0][0].endswith("id=1ODxA7mJv17UfzwfXtY9dTWNsYghoNWGB")
    assert heard.notes == [LICENCE]
    assert heard.warnings == [
        "vit_small_cfs_lup.pth has no published hash: it loads safely and its keys and shapes are those of "
        "vit_small, but it may be of another training"
    ]
    encoder = Encoder("vit_small", "cls", 64, 32)
    assert load_pretrained(encoder, "person") == (
        "vit_small starts from person-pretrained weights (vit_small_cfs_lup.pth) (backbone by the names "
        "of DINO)"
    )


def test_a_vision_transformer_without_a_link(cache: Path, tmp_path: Path, of_persons: bytes) -> None:
    by_hand = "calr fetch-pretrained -a vit_base --file FILE"
    with pytest.raises(WeightsError) as error:
        fetch_pretrained("vit_base", Heard())
    assert error.value.lines() == [
        "no link to person-pretrained weights of vit_base is known. Ask the publisher "
        f"(https://github.com/damo-cv/TransReID-SSL) for the file, and give it with: {by_hand}"
    ]
    (tmp_path / "mine.pth").write_bytes(of_persons)
    with pytest.raises(WeightsError, match=r"mine\.pth is of vit_small, not of vit_base"):
        adopt_pretrained("vit_base", tmp_path / "mine.pth", Heard())
    assert adopt_pretrained("vit_small", tmp_path / "mine.pth", Heard()).parent == cache


def test_files_that_are_no_vision_transformer_of_that_kind(tmp_path: Path, of_persons: bytes) -> None:
    check, path = VitCheck("vit_small"), tmp_path / "w.pth"

    def problem(content: object) -> str:
        torch.save(content, path)
        return check.problem(path)

    state = dict(Encoder("vit_small", "cls").backbone.state_dict())
    assert problem(state) == ""
    assert (
        problem({**state, "norm.bias": torch.full((24,), torch.inf)})
        == "holds values that are not finite numbers"
    )
    assert problem({**state, "extra": torch.ones(1)}) == "does not fit vit_small: unexpected keys (1): extra"
    assert problem({**state, "part_token1": torch.ones(1)}).startswith("has part tokens (PASS), which calr's")
    assert problem(Encoder("resnet18").backbone.state_dict()) == "is of resnet18, not of vit_small"
    path.write_bytes(b"")
    assert check.problem(path) == "is empty"


def test_weights_of_another_kind_than_there_are() -> None:
    for arch, kind, there in (
        ("vit_small", "imagenet", "person-pretrained weights. Give --pretrained person"),
        ("resnet50", "person", "ImageNet weights. Give --pretrained imagenet"),
    ):
        with pytest.raises(WeightsError) as error:
            cached_weights(arch, kind)
        assert error.value.lines() == [
            f"--pretrained {kind}: calr knows no such published weights of {arch}, only {there}, none, or "
            "a file"
        ]
