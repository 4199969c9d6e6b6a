"""From a data root to prepared datasets: find, unpack where needed, check, write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from calr_cli.data.tables import first_names
from calr_cli.errors import DataError
from calr_cli.events import Reporter
from calr_cli.files import atomic_write, calr_home
from calr_cli.prepare.acquisition import fetch, unpack_found, unpack_given
from calr_cli.prepare.card import DatasetCard
from calr_cli.prepare.check import Origin, check_listing
from calr_cli.prepare.datasets import LAYOUTS
from calr_cli.prepare.datasets.layout import DatasetLayout
from calr_cli.prepare.datasets.market1501 import MARKET1501
from calr_cli.prepare.datasets.synthetic import FOLDER, SYNTHETIC_VERSION, make_synthetic
from calr_cli.prepare.discovery import Place, Survey, survey
from calr_cli.prepare.names import resolve_dataset_name


def remember_root(root: Path) -> None:
    """Make ``root`` the data root of later commands."""
    with atomic_write(calr_home() / "root.txt") as temporary:
        temporary.write_text(f"{root.resolve()}\n", encoding="utf-8", errors="surrogateescape")


def remembered_root() -> Path | None:
    """The data root of the last `remember_root`, or None."""
    try:
        text = (calr_home() / "root.txt").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    return Path(text.strip()) if text.strip() else None


def prepare_datasets(
    root: Path, reporter: Reporter, *, download: bool = False, verify: bool = False
) -> list[DatasetCard]:
    """Prepare every published dataset under ``root`` and remember the root.

    How to get those that are absent is noted. A dataset that cannot be used does not keep the
    others from being prepared.

    Args:
        root: The folder; with ``download`` it is made if it is absent.
        reporter: Hears progress, notes and warnings.
        download: Fetch what is absent and open to all.
        verify: Read the images again even if nothing was changed.

    Raises:
        DataError: No such folder, none of the datasets is there, or one that is cannot be used.
    """
    if download:
        root.mkdir(parents=True, exist_ok=True)
    found = survey(root)
    cards: list[DatasetCard] = []
    problems: list[str] = []
    for layout in LAYOUTS.values():
        try:
            places = found.of(layout) or unpack_found(layout, found, reporter)
            if download and not places:
                places = fetch(layout, root, reporter)
            if places:
                cards.append(_prepare(places, root, reporter, verify))
            else:
                reporter.note(f"{layout.title} is not under {root}; {_how_to_get(layout)}")
        except DataError as error:
            problems += error.lines()
    if cards:
        remember_root(root)
    if problems:
        raise DataError(problems)
    lookalikes = [place.not_taken for place in found.lookalikes]
    if not cards:
        raise DataError(
            [_nothing("None of the datasets", LAYOUTS.values(), found, root), *lookalikes],
            ""
            if lookalikes
            else "Give the folder that holds them: --root DIR; for your own images: "
            "--images DIR --pattern REGEX",
        )
    for text in lookalikes:
        reporter.note(text)
    return cards


def prepare_archives(
    archives: Sequence[Path], root: Path, reporter: Reporter, *, verify: bool = False
) -> list[DatasetCard]:
    """Unpack archives of any name below ``root``, prepare the datasets in them, and remember the root.

    An archive that lies under the root is unpacked beside itself.

    Raises:
        DataError: An archive, or a dataset in it, cannot be used, or there is none in it.
    """
    found = Survey([place for archive in archives for place in unpack_given(archive, root, reporter)])
    each = [found.of(layout) for layout in LAYOUTS.values()]
    cards = [_prepare(places, root, reporter, verify) for places in each if places]
    remember_root(root)
    return cards


def prepare_dataset(name: str, root: Path, reporter: Reporter) -> DatasetCard:
    """Prepare one published dataset (or alias) from under ``root``; the root is not remembered.

    Raises:
        ConfigError: No dataset of that name.
        DataError: The dataset is not a published one, not under the root, or cannot be used.
    """
    name = resolve_dataset_name(name)
    if name not in LAYOUTS:
        raise DataError(f"{name} is not looked for under a root", "Only published datasets are")
    layout = LAYOUTS[name]
    found = survey(root)
    if places := found.of(layout) or unpack_found(layout, found, reporter):
        return _prepare(places, root, reporter)
    lookalikes = [place.not_taken for place in found.lookalikes if place.layout == layout]
    raise DataError(
        [*lookalikes, _nothing(f"No {layout.title}", [layout], found, root)], f"It is {_how_to_get(layout)}"
    )


def prepare_synthetic(reporter: Reporter) -> DatasetCard:
    """Draw the synthetic dataset in calr's own folder, unless it is there, and prepare it.

    Raises:
        OSError: The folder cannot be written or the disk is full.
    """
    root = calr_home() / "synthetic" / SYNTHETIC_VERSION
    folder = root / FOLDER
    if not folder.is_dir():
        reporter.note(f"drawing the synthetic dataset in {folder}")
        make_synthetic(root)
    origin = Origin("synthetic", "Synthetic", SYNTHETIC_VERSION, folder, root)
    return check_listing(MARKET1501.versions[0].read(folder), origin, reporter)


def _how_to_get(layout: DatasetLayout) -> str:
    return layout.source + ("" if layout.download else "; calr prepare-data --archive FILE takes its archive")


def _nothing(what: str, layouts: Iterable[DatasetLayout], found: Survey, root: Path) -> str:
    looked_for = ", ".join(
        f"{layout.title} ({' or '.join(version.folders[0] for version in layout.versions)})"
        for layout in layouts
    )
    text = f"{what} is under {root}; looked for folders and archives of {looked_for}"
    if found.archives:
        names = first_names([str(archive) for archive in found.archives])
        text += f"; there are archives with other names or contents, to be given as --archive FILE: {names}"
    return text


def _prepare(places: list[Place], root: Path, reporter: Reporter, verify: bool = False) -> DatasetCard:
    """Prepare the first of a dataset's places."""
    place, *others = places
    layout = place.layout
    if others:
        also = first_names([f"{other.folder} ({other.version.name})" for other in others])
        reporter.warning(
            f"{layout.title}: taking {place.version.name} in {place.folder}, though there is also {also}; "
            "to take another, give its folder as --root"
        )
    origin = Origin(layout.name, layout.title, place.version.name, place.folder, root.resolve())
    return check_listing(place.version.read(place.folder), origin, reporter, layout=layout, verify=verify)
