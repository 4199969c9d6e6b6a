"""Which name means which dataset."""

from __future__ import annotations

import difflib

from calr_cli.data.manifest import dataset_folder
from calr_cli.errors import ConfigError
from calr_cli.prepare.datasets import DATASET_NAMES, LAYOUTS

ALIASES: dict[str, str] = {alias: name for name, layout in LAYOUTS.items() for alias in layout.aliases}


def own_dataset_names() -> tuple[str, ...]:
    """Names of the prepared datasets that are not built in, sorted."""
    manifests = dataset_folder("x").parent.glob("*/manifest.csv")
    return tuple(sorted(path.parent.name for path in manifests if path.parent.name not in DATASET_NAMES))


def resolve_dataset_name(name: str) -> str:
    """The canonical name of a dataset; aliases and upper case are understood.

    Raises:
        ConfigError: No such dataset; names the nearest valid one and lists all.
    """
    own = own_dataset_names()
    if name in own:
        return name
    lowered = name.lower()
    if lowered in DATASET_NAMES:
        return lowered
    if lowered in ALIASES:
        return ALIASES[lowered]
    valid = (*DATASET_NAMES, *own)
    # An alias may be nearer than its canonical name ("vehi776"), yet the canonical name is what to say.
    near = difflib.get_close_matches(lowered, [*valid, *ALIASES], n=1)
    guess = f"; the nearest is {ALIASES.get(near[0], near[0])}" if near else ""
    raise ConfigError(
        f"There is no dataset '{name}'{guess}",
        f"Datasets: {', '.join(valid)}; add your own with `calr prepare-data --images DIR --pattern REGEX`",
    )
