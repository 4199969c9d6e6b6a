"""From a data root to prepared datasets: find, unpack where needed, check, write."""

from __future__ import annotations

from pathlib import Path

from calr_cli.data.archives import holds_folder, unpack
from calr_cli.data.card import DatasetCard
from calr_cli.data.check import Origin, check_listing
from calr_cli.data.datasets import LAYOUTS
from calr_cli.data.datasets.layout import DatasetLayout
from calr_cli.data.datasets.market1501 import MARKET1501
from calr_cli.data.datasets.synthetic import FOLDER, SYNTHETIC_VERSION, make_synthetic
from calr_cli.data.discovery import Place, Survey, survey
from calr_cli.data.names import resolve_dataset_name
from calr_cli.data.tables import first_names
from calr_cli.errors import DataError
from calr_cli.events import Reporter
from calr_cli.files import atomic_write, calr_home


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


def prepare_datasets(root: Path, reporter: Reporter) -> list[DatasetCard]:
    """Prepare every published dataset under ``root`` and remember the root.

    Absent datasets are noted with where they come from. A dataset that cannot be used does not
    keep the others from being prepared.

    Raises:
        DataError: No such folder, none of the datasets is there, or one that is cannot be used.
    """
    found = survey(root)
    cards: list[DatasetCard] = []
    problems: list[str] = []
    for layout in LAYOUTS.values():
        try:
            card = _prepare_layout(layout, found, root, reporter)
        except DataError as error:
            problems += error.lines()
            continue
        if card:
            cards.append(card)
        else:
            reporter.note(f"{layout.title} is not under {root}; it comes from: {layout.source}")
    if cards:
        remember_root(root)
    if problems:
        raise DataError(problems)
    if not cards:
        looked_for = ", ".join(_wanted(layout) for layout in LAYOUTS.values())
        raise DataError(
            f"None of the datasets is under {root}; looked for folders and archives of {looked_for}",
            "Give the folder that holds them: --root DIR; for your own images: --images DIR --pattern REGEX",
        )
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
    if card := _prepare_layout(layout, survey(root), root, reporter):
        return card
    raise DataError(
        f"{layout.title} is not under {root}; looked for folders and archives of {_wanted(layout)}",
        f"It comes from: {layout.source}",
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


def _wanted(layout: DatasetLayout) -> str:
    return f"{layout.title} ({' or '.join(version.folders[0] for version in layout.versions)})"


def _prepare_layout(
    layout: DatasetLayout, found: Survey, root: Path, reporter: Reporter
) -> DatasetCard | None:
    places = found.of(layout) or _unpack_places(layout, found.archives, reporter)
    if not places:
        return None
    place, *others = places
    if others:
        also = first_names([f"{other.folder} ({other.version.name})" for other in others])
        reporter.warning(
            f"{layout.title}: taking {place.version.name} in {place.folder}, though there is also {also}; "
            "to take another, give its folder as --root"
        )
    origin = Origin(layout.name, layout.title, place.version.name, place.folder, root.resolve())
    return check_listing(place.version.read(place.folder), origin, reporter, official=layout.official)


def _unpack_places(layout: DatasetLayout, archives: list[Path], reporter: Reporter) -> list[Place]:
    """Places inside the first archive that is called like the dataset and holds its folders."""
    folders = {version.folders[0] for version in layout.versions}
    for archive in archives:
        if not layout.mark.search(archive.name) or not holds_folder(archive, folders):
            continue
        target = unpack(archive, reporter)
        if places := survey(target).of(layout):
            return places
        raise DataError(
            f"{archive} holds {layout.title}, but {target} does not",
            "Move that folder away, then it is unpacked again",
        )
    return []
