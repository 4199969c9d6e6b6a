"""A prepared dataset, as training and evaluation ask for it by name."""

from __future__ import annotations

import os
from pathlib import Path

from calr_cli.data.manifest import manifest_path, read_manifest
from calr_cli.errors import DataError
from calr_cli.events import Reporter, SilentReporter
from calr_cli.prepare.card import DatasetCard, read_card
from calr_cli.prepare.datasets import LAYOUTS
from calr_cli.prepare.datasets.synthetic import SYNTHETIC_VERSION
from calr_cli.prepare.freshness import require_fresh
from calr_cli.prepare.names import resolve_dataset_name
from calr_cli.prepare.published import prepare_dataset, prepare_synthetic, remembered_root
from calr_cli.types import Dataset


def load_dataset(name: str, root: Path | None = None, reporter: Reporter | None = None) -> Dataset:
    """Load a prepared dataset.

    A published dataset is first prepared from ``root``, or from ``$CALR_DATA``, if it was not
    prepared from there already; the synthetic one is drawn when it is first asked for.

    Args:
        name: Canonical name, alias, or the name of an own prepared dataset.
        root: Data root that overrides ``$CALR_DATA`` and what was prepared before.
        reporter: Hears about preparing; None: nobody does.

    Raises:
        ConfigError: No dataset of that name.
        DataError: It is not prepared, its images are gone or have changed since, or its manifest makes no
            sense.
    """
    reporter = reporter or SilentReporter()
    name = resolve_dataset_name(name)
    card = read_card(name)
    if root is not None and name not in LAYOUTS:
        reporter.note(f"{name} is not looked for under a root: {root} is not used")
    if root is None and (variable := os.environ.get("CALR_DATA")):
        root = Path(variable).expanduser()
    if name in LAYOUTS and root is not None and (card is None or not _is_from(card, root)):
        reporter.note(f"Preparing {name} from {root}")
        card = prepare_dataset(name, root, reporter)
    if name == "synthetic" and (card is None or card.version != SYNTHETIC_VERSION or not card.root.is_dir()):
        card = prepare_synthetic(reporter)
    if card is None or not manifest_path(name).is_file():
        where = remembered_root() or "DIR"
        raise DataError(f"{name} is not prepared", f"Run `calr prepare-data --root {where}` first")
    if not card.root.is_dir():
        raise DataError(
            f"The images of {name} are no longer in {card.root}",
            "Run `calr prepare-data` with the folder that they are in now",
        )
    dataset = read_manifest(manifest_path(name), name, card.root, inside_root=name in LAYOUTS)
    require_fresh(dataset, card.version, card.root, reporter)
    return dataset


def _is_from(card: DatasetCard, root: Path) -> bool:
    root = root.resolve()
    return card.source == root or card.root.is_relative_to(root)
