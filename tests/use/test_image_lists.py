"""Files, folders and tables to images, in an order that stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from calr_cli.data.manifest import manifest_path
from calr_cli.errors import DataError
from calr_cli.events import SilentReporter
from calr_cli.prepare.prepared import load_dataset
from calr_cli.use.image_lists import list_images
from tests.support.heard import Heard
from tests.support.made_up import write_image
from tests.support.small import small_dataset


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "a.png", "deep/c d.jpg"):
        (Path("photos") / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(Path("photos") / name, 0)
    Path("photos/notes.txt").write_text("no image", encoding="utf-8")
    return Path("photos")


def test_in_the_order_given_and_once(photos: Path) -> None:
    found = list_images(["photos/b.jpg", "photos", "photos/b.jpg", "no/such.jpg"], SilentReporter())
    assert found == ["photos/b.jpg", "photos/a.png", "photos/deep/c d.jpg", "no/such.jpg"]


def test_a_table_counts_from_its_folder(photos: Path) -> None:
    (photos / "list.csv").write_text("camid,path\n1,deep/c d.jpg\n2,gone.jpg\n", encoding="utf-8")
    assert list_images(["photos/list.csv"], SilentReporter()) == ["photos/deep/c d.jpg", "photos/gone.jpg"]


def test_the_manifest_of_a_prepared_dataset(tmp_path: Path) -> None:
    """Its paths count from the folder of the images, which is elsewhere."""
    dataset = small_dataset(tmp_path)
    found = list_images([str(manifest_path("market1501"))], SilentReporter())
    assert len(found) == sum(map(len, (dataset.train, dataset.query, dataset.gallery)))
    assert found[0] == str(load_dataset("market1501").train.root / dataset.train.paths[0])


def test_what_a_folder_leaves_out_is_said(photos: Path) -> None:
    (photos / "broken.jpg").symlink_to("nowhere")
    heard = Heard()
    list_images(["photos"], heard)
    assert heard.warnings == ["photos: left out, cannot be read: broken.jpg (broken link)"]


def test_no_image(photos: Path) -> None:
    (photos / "empty").mkdir()
    with pytest.raises(DataError, match=r"^no image in photos/empty\. Give image files, folders or a table"):
        list_images(["photos/empty"], SilentReporter())
    (photos / "list.csv").write_text("name\nx.jpg\n", encoding="utf-8")
    with pytest.raises(DataError, match="has no column path in its first line"):
        list_images(["photos/list.csv"], SilentReporter())
