"""Images that are overwritten, copied, removed or added after they were prepared."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from calr_cli.data.manifest import dataset_folder
from calr_cli.errors import DataError
from calr_cli.prepare.own_images import prepare_own_images, prepare_own_table
from calr_cli.prepare.prepared import load_dataset
from calr_cli.prepare.published import prepare_datasets
from tests.support.heard import Heard
from tests.support.made_up import make_layout, write_image


def loaded(name: str) -> Heard:
    heard = Heard()
    load_dataset(name, None, heard)
    return heard


def refusal(name: str) -> str:
    with pytest.raises(DataError) as error:
        load_dataset(name)
    (line,) = error.value.lines()
    return line


@pytest.fixture
def veri(tmp_path: Path) -> Path:
    folder = make_layout("veri", tmp_path / "data")
    prepare_datasets(tmp_path / "data", Heard())
    return folder


def first_image(folder: Path) -> Path:
    return min((folder / "image_train").iterdir())


def test_untouched_images_are_not_read(veri: Path) -> None:
    heard = loaded("veri")
    assert heard.steps == heard.warnings == heard.notes == []


def test_an_overwritten_image_is_refused_whatever_keeps_its_pixels(veri: Path) -> None:
    """A warm cache gave the old figures, no cache the new ones in silence, a cache in memory an error."""
    image = first_image(veri)
    write_image(image, 7, seed=99)
    assert refusal("veri") == (
        f"1 image(s) of veri in {veri} have changed since they were prepared: image_train/{image.name}. "
        "To take them as they are now: run `calr prepare-data` again, as before"
    )
    prepare_datasets(veri.parent, Heard())
    assert loaded("veri").steps == []


def test_a_copy_with_new_times_is_compared_once_and_taken(veri: Path) -> None:
    for image in veri.rglob("*.jpg"):
        os.utime(image, ns=(1, 1))
    heard = loaded("veri")
    assert heard.steps == ["Comparing veri, whose files have new times: 72 images"]
    assert heard.warnings == []
    assert loaded("veri").steps == []
    shutil.copy(first_image(veri), min((veri / "image_query").iterdir()))
    assert refusal("veri").startswith("1 image(s) of veri in ")


def test_new_times_that_cannot_be_written_down_are_no_error(
    veri: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(first_image(veri), ns=(1, 1))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        patch.setattr(Path, "replace", full)
        assert len(loaded("veri").steps) == 1
    assert len(loaded("veri").steps) == 1
    assert loaded("veri").steps == []


def test_an_image_that_is_gone(veri: Path) -> None:
    image = first_image(veri)
    image.unlink()
    assert refusal("veri") == (
        f"1 image(s) of veri are no longer in {veri}: image_train/{image.name}. "
        "Restore them. Otherwise: run `calr prepare-data` again, as before"
    )


def test_images_that_were_added(veri: Path) -> None:
    (veri / "image_train" / "more").mkdir()
    write_image(veri / "image_train" / "more" / "0001_c001_99999999_0.jpg", 1)
    write_image(veri / "elsewhere.jpg", 1)  # where the dataset has no images
    (veri / "image_train" / "notes.txt").touch()
    assert loaded("veri").warnings == [
        f"1 image(s) were added to {veri} after veri was prepared and are not used: "
        "image_train/more/0001_c001_99999999_0.jpg. To take them in: run `calr prepare-data` again, as before"
    ]
    prepare_datasets(veri.parent, Heard())
    assert loaded("veri").warnings == []


def test_what_was_left_out_was_not_added(tmp_path: Path) -> None:
    images = tmp_path / "shop"
    images.mkdir()
    for name in ("1_c1_.png", "1_c2_.png", "odd.png"):
        write_image(images / name, 1)
    (images / "2_c1_.png").write_bytes(b"no image")
    prepare_own_images(images, None, r"(?P<pid>-?\d+)_c(?P<camid>\d+)_", None, 1, Heard())
    assert loaded("shop").warnings == []
    write_image(images / "3_c1_.png", 3)
    assert loaded("shop").warnings == [
        f"1 image(s) were added to {images} after shop was prepared and are not used: 3_c1_.png. To take "
        "them in: run `calr prepare-data` again, as before"
    ]


def test_a_table_that_has_changed(tmp_path: Path) -> None:
    """Images beside those that it lists are not the dataset's; absolute paths are followed."""
    (tmp_path / "elsewhere").mkdir()
    for path in (tmp_path / "a.png", tmp_path / "b.png", tmp_path / "elsewhere" / "c.png"):
        write_image(path, 1)
    table = tmp_path / "t.csv"
    table.write_text(f"path,camid\na.png,1\n{tmp_path}/elsewhere/c.png,2\n")
    prepare_own_table(table, None, None, 1, Heard())
    assert loaded("t").warnings == []
    with table.open("a") as file:
        file.write("b.png,2\n")
    assert loaded("t").warnings == [
        f"{table} has changed since t was prepared. To read it again: run `calr prepare-data` again, "
        "as before"
    ]
    write_image(tmp_path / "elsewhere" / "c.png", 5, seed=5)
    assert refusal("t").startswith(f"1 image(s) of t in {tmp_path} have changed since they were prepared")


def test_what_an_older_calr_prepared_is_loaded_and_prepared_anew(veri: Path) -> None:
    stamps = dataset_folder("veri") / "files.csv"
    for content in ("", "path,size,mtime_ns\nx,one,two\n"):
        stamps.write_text(content)
        write_image(first_image(veri), 3, seed=len(content))
        assert loaded("veri").warnings == []
    heard = Heard()
    stamps.unlink()
    prepare_datasets(veri.parent, heard)
    assert heard.steps == ["Checking VeRi-776: 72 images"]
    assert loaded("veri").steps == []
