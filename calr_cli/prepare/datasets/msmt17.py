"""MSMT17 (Wei et al., CVPR 2018): 4,101 persons, 15 cameras, two versions and a Market-like layout."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from calr_cli.data.tables import Problems, first_names
from calr_cli.errors import DataError
from calr_cli.prepare.datasets.layout import (
    ITSELF,
    BadCopy,
    DatasetLayout,
    Entry,
    FlatVersion,
    Listing,
    OfficialCounts,
    image_files,
    require_folders,
)

NUM_CAMERAS = 15

# train + val are the training images: the SpCL family, and so the published numbers, use both.
LISTS = {
    "list_train.txt": ("train", 0),
    "list_val.txt": ("train", 0),
    "list_query.txt": ("query", 1),
    "list_gallery.txt": ("gallery", 1),
}
"""Each list's split, and which of the version's two folders its paths start from."""

CAMERA = re.compile(r"\d+_\d+_(\d+)_", re.ASCII)
"""The third field of a file name such as 0000_000_01_0303morning_0008_0.jpg."""


NAMED_V2 = re.compile(r"(?<![a-z])v2", re.IGNORECASE)


@dataclass(frozen=True)
class ListVersion:
    """Two folders of images and four lists of "path pid" lines."""

    name: str
    folders: tuple[str, ...]

    def recognises(self, folder: Path) -> bool:
        """See `layout.Version.recognises`."""
        return "list_train.txt" in _lists(folder)

    def read(self, folder: Path) -> Listing:
        """See `layout.Version.read`."""
        require_folders(folder, self.folders)
        lists = _lists(folder)
        if absent := [name for name in LISTS if name not in lists]:
            raise DataError(
                f"{folder} has no {', '.join(absent)}: a known bad copy, one without lists",
                "They say which image is in which split: copy them from the original archive",
            )
        present = [_by_listed_path(image_files(folder / name)) for name in self.folders]
        entries: dict[tuple[str, str], Entry] = {}
        warnings: list[str] = []
        if self.name == "V1" and NAMED_V2.search(folder.name):
            warnings.append(
                f"{folder} is named as V2, its folders as those of V1: where faces are blurred it is V2, "
                "and scores are lower"
            )
        for list_name, (split, place) in LISTS.items():
            missing: list[str] = []
            unknown: list[str] = []
            for path, pid in _read_list(lists[list_name]):
                camera = CAMERA.match(path.rpartition("/")[2])
                actual = present[place].get(path) or present[place].get(path.rpartition("/")[2])
                if actual is None:
                    missing.append(path)
                elif not camera or not 1 <= int(camera[1]) <= NUM_CAMERAS:
                    unknown.append(path)
                else:
                    full = f"{self.folders[place]}/{actual}"
                    entries[split, full] = Entry(split, full, pid, int(camera[1]) - 1)
            if missing:
                warnings.append(
                    f"{lists[list_name]}: {len(missing)} listed image(s) are not in {self.folders[place]}: "
                    f"{first_names(missing)}"
                )
            if unknown:
                warnings.append(
                    f"{lists[list_name]}: {len(unknown)} image(s) left out, no camera 1 to {NUM_CAMERAS} "
                    f"in the name: {first_names(unknown)}"
                )
        splits = {entry.split for entry in entries.values()}
        for split in ("train", "query", "gallery"):
            if split not in splits:
                raise DataError(
                    f"{folder}: no image of its {split} lists is there", "Unpack the dataset again"
                )
        return Listing(tuple(entries.values()), tuple(warnings))


def _lists(folder: Path) -> dict[str, Path]:
    """The lists that are there by their names; a copy may have lost their ending, or have it twice."""
    named = {path.name.lower().replace(".txt", "") + ".txt": path for path in sorted(folder.iterdir())}
    return {name: named[name] for name in LISTS if name in named and named[name].is_file()}


def _by_listed_path(paths: Iterable[str]) -> dict[str, str]:
    """The images by their path and, where that is unique, by their name: a copy may have other folders."""
    found = {path: path for path in paths}
    names = {path.rpartition("/")[2]: path for path in found}
    return names | found if len(names) == len(found) else found


def _read_list(path: Path) -> list[tuple[str, int]]:
    problems = Problems(path)
    rows: list[tuple[str, int]] = []
    for line, text in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not text.strip():
            continue
        image, _, pid = text.strip().rpartition(" ")
        rows.append((image.strip(), problems.integer(line, "pid", pid, low=0)))
    problems.raise_if_any('Each line is "path pid": copy the list from the original archive')
    return rows


MSMT17 = DatasetLayout(
    name="msmt17",
    title="MSMT17",
    aliases=("msmt",),
    mark=re.compile(ITSELF + r"msmt", re.IGNORECASE),
    source="given on request by its owners, ask at https://www.pkuvmc.com/dataset.html",
    official=OfficialCounts(
        images=(32621, 11659, 82161),
        ids=(1041, 3060, 3060),
        train_per_camera=(
            *(4910, 203, 454, 1614, 4296, 1678, 3453, 795),
            *(1396, 655, 3154, 1364, 3635, 3876, 1138),
        ),
    ),
    versions=(
        ListVersion("V1", ("train", "test")),
        FlatVersion(
            name="Market-like",
            folders=("bounding_box_train", "query", "bounding_box_test"),
            pattern=re.compile(r"(?P<pid>\d{1,9})_c(?P<camera>\d{1,3})_(?!f)", re.ASCII),
            num_cameras=NUM_CAMERAS,
            example="0000_c1_0000.jpg",
        ),
        ListVersion("V2", ("mask_train_v2", "mask_test_v2")),
    ),
    bad_copies=(BadCopy("gallery", 60910),),
)
