"""What a shell offers behind Tab where it cannot know it: names of datasets, presets, choices, runs, models.

These run while somebody waits with a finger on the key: nothing here imports torch. A file or folder that is
none of these is completed by the shell itself, as soon as nothing of these begins with what was typed.
"""

from __future__ import annotations

from collections.abc import Callable

from calr_cli.config.wording import LEAVES, choices


def datasets() -> list[str]:
    """Prepared datasets and those built in."""
    from calr_cli.prepare.datasets import DATASET_NAMES
    from calr_cli.prepare.names import own_dataset_names

    return [*own_dataset_names(), *DATASET_NAMES]


def presets() -> list[str]:
    """Presets by name, then recipes."""
    from calr_cli.config.loading import preset_names, recipe_names

    return [*preset_names(), *recipe_names()]


def choices_of(key: str) -> Callable[[], list[str]]:
    """What a setting chooses from."""
    return lambda: list(choices(LEAVES[key]))


def runs() -> list[str]:
    """Run folders below ``runs``, the newest first."""
    from calr_cli.runs.find import RUNS

    return sorted((str(path.parent) for path in RUNS.glob("*/*/*/config.yaml")), reverse=True)


def models() -> list[str]:
    """``model.pth``, which is looked for in the newest finished run, and the models of all runs."""
    from calr_cli.runs.find import RUNS

    paths = [str(path) for path in RUNS.glob("*/inter/*/model.pth")]
    return ["model.pth", *sorted(paths, reverse=True)]
