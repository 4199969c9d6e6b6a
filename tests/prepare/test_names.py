from __future__ import annotations

from pathlib import Path

import pytest

from calr_cli.data.manifest import manifest_path, write_manifest
from calr_cli.errors import ConfigError
from calr_cli.prepare.names import resolve_dataset_name


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("market1501", "market1501"),
        ("market", "market1501"),
        ("Market-1501", "market1501"),
        ("duke", "dukemtmcreid"),
        ("DukeMTMC-reID", "dukemtmcreid"),
        ("msmt", "msmt17"),
        ("MSMT17", "msmt17"),
        ("veri", "veri"),
        ("VeRi776", "veri"),
        ("synthetic", "synthetic"),
    ],
)
def test_names_and_aliases(given: str, canonical: str) -> None:
    assert resolve_dataset_name(given) == canonical


@pytest.mark.parametrize(
    ("given", "nearest"),
    [("vrei", "; the nearest is veri"), ("market1510", "; the nearest is market1501"), ("zzz", "")],
)
def test_unknown_name_says_the_nearest_and_all(given: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve_dataset_name(given)
    assert error.value.lines() == [
        f"There is no dataset '{given}'{nearest}. "
        "Datasets: market1501, dukemtmcreid, msmt17, veri, synthetic; "
        "add your own with `calr prepare-data --images DIR --pattern REGEX`"
    ]


def test_own_prepared_datasets_are_names_too(calr_home: Path) -> None:
    write_manifest(manifest_path("PKU"), [("train", "a.jpg", -1, 0, "0a")])
    assert resolve_dataset_name("PKU") == "PKU"
    with pytest.raises(ConfigError, match="synthetic, PKU; add your own"):
        resolve_dataset_name("zzz")
