"""Whether the images of a prepared dataset are still those that were prepared."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from calr_cli.data.images import content_digest
from calr_cli.data.manifest import dataset_folder
from calr_cli.data.tables import first_names, read_table, write_table
from calr_cli.errors import DataError
from calr_cli.events import Reporter
from calr_cli.prepare.datasets import LAYOUTS
from calr_cli.prepare.datasets.folders import find_images
from calr_cli.prepare.datasets.layout import image_files
from calr_cli.threads import available_cores
from calr_cli.types import Dataset

Stamp = tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds."""

GONE: Stamp = (-1, -1)

AGAIN = "run `calr prepare-data` again, as before"

_THREADS = 16  # on a network file system it is the answers that take time
_AT_A_TIME = 1000


def stamps_of(root: Path, paths: Iterable[str]) -> dict[str, Stamp]:
    """The stamp of each file, by its path from ``root``; `GONE` where there is none."""

    def stamps(part: list[str]) -> list[tuple[str, Stamp]]:
        return [(path, _stamp(os.path.join(root, path))) for path in part]  # noqa: PTH118 - see `_stamp`

    distinct = list(dict.fromkeys(paths))
    parts = [distinct[first : first + _AT_A_TIME] for first in range(0, len(distinct), _AT_A_TIME)]
    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(pair for part in pool.map(stamps, parts) for pair in part)


def images_there(name: str, version: str, root: Path) -> set[str]:
    """The paths of all images in the folders that a dataset is listed from; none where a table lists them."""
    if version == "own images":
        return set(find_images(root)[0])
    layouts = [LAYOUTS[name]] if name in LAYOUTS else []
    folders = [v.folders for layout in layouts for v in layout.versions if v.name == version]
    return {f"{folder}/{path}" for each in folders for folder in each for path in image_files(root / folder)}


def write_stamps(name: str, stamps: Mapping[str, Stamp], others: Iterable[str]) -> None:
    """Keep what the files of a dataset were like.

    Args:
        name: Of the dataset.
        stamps: Of its images, by path, and of the table that lists them.
        others: Images in its folders that it was not to have.
    """
    rows = [(path, str(size), str(time)) for path, (size, time) in stamps.items()]
    write_table(_file(name), ("path", "size", "mtime_ns"), [*rows, *((path, "", "") for path in others)])


def has_stamps(name: str) -> bool:
    """Whether it is kept what the files of a dataset were like."""
    return _read_stamps(name) is not None


def require_fresh(dataset: Dataset, version: str, root: Path, reporter: Reporter) -> None:
    """Compare the images with what they were when they were prepared, by size and time.

    Where only these differ and not the content, as in a copy, the new ones are kept.

    Args:
        dataset: As the manifest has it.
        version: Of the dataset, as its card has it.
        root: Of its images.
        reporter: Warned of images that have been added, and shown a progress where files have to be read.

    Raises:
        DataError: Images have changed or are gone.
    """
    before = _read_stamps(dataset.name)
    if before is None:  # prepared by a calr that kept none
        return
    splits = (dataset.train, dataset.query, dataset.gallery)
    digests = {p: d for images in splits for p, d in zip(images.paths, images.digests, strict=True)}
    now = stamps_of(root, (path for path in digests if before.get(path)))
    differing = [path for path, stamp in now.items() if stamp != before[path]]
    if gone := [path for path in differing if now[path] == GONE]:
        raise DataError(
            f"{len(gone):,} image(s) of {dataset.name} are no longer in {root}: {first_names(gone)}",
            f"Restore them. Otherwise: {AGAIN}",
        )
    if changed := _of_other_content(root, differing, digests, dataset.name, reporter):
        raise DataError(
            f"{len(changed):,} image(s) of {dataset.name} in {root} have changed since they were prepared: "
            f"{first_names(changed)}",
            f"To take them as they are now: {AGAIN}",
        )
    if differing:
        taken = {path: now.get(path, stamp) for path, stamp in before.items() if stamp}
        with suppress(OSError):  # they are read again the next time
            write_stamps(dataset.name, taken, (path for path, stamp in before.items() if not stamp))
    tables = {path: stamp for path, stamp in before.items() if stamp and path not in digests}
    for table in (path for path, stamp in stamps_of(root, tables).items() if stamp != tables[path]):
        reporter.warning(f"{table} has changed since {dataset.name} was prepared. To read it again: {AGAIN}")
    if added := sorted(images_there(dataset.name, version, root) - before.keys()):
        reporter.warning(
            f"{len(added):,} image(s) were added to {root} after {dataset.name} was prepared and are not "
            f"used: {first_names(added)}. To take them in: {AGAIN}"
        )


def _of_other_content(
    root: Path, paths: list[str], digests: Mapping[str, str], title: str, reporter: Reporter
) -> list[str]:
    def has_changed(path: str) -> bool:
        return content_digest((root / path).read_bytes()) != digests[path]

    if not paths:
        return []
    changed = []
    step = reporter.progress(f"Comparing {title}, whose files have new times", len(paths), "images")
    with ThreadPoolExecutor(available_cores()) as pool, step as progress:
        for path, has in zip(paths, pool.map(has_changed, paths), strict=True):
            progress.advance()
            changed += [path] * has
    return changed


def _read_stamps(name: str) -> dict[str, Stamp | None] | None:
    try:
        rows = read_table(_file(name), ("path", "size", "mtime_ns"))
        return {
            row["path"]: (int(row["size"]), int(row["mtime_ns"])) if row["size"] else None for _, row in rows
        }
    except (DataError, ValueError):
        return None


def _file(name: str) -> Path:
    return dataset_folder(name) / "files.csv"


def _stamp(file: str) -> Stamp:
    try:
        status = os.stat(file)  # noqa: PTH116 - pathlib takes several times as long
    except OSError:
        return GONE
    return status.st_size, status.st_mtime_ns
