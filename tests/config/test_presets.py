from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import calr_cli
from calr_cli.config.loading import load_settings_file, preset_names, read_preset, resolve_settings
from calr_cli.config.wording import LEAVES
from calr_cli.errors import ConfigError

FILES = sorted(Path(calr_cli.__file__).parent.rglob("presets/*.yaml"))
HEADER = re.compile(
    r"# Purpose:  .+\n# Before:   .+\n# Launch:   calr .+\n# Override: calr (.+)\ndata:\n", re.MULTILINE
)


def value_of(settings: Any, key: str) -> Any:
    for name in key.split("."):
        settings = getattr(settings, name)
    return settings


def test_there_are_five() -> None:
    assert len(FILES) == 5
    assert preset_names() == [file.stem for file in FILES]
    assert preset_names() == ["dukemtmcreid", "market1501", "msmt17", "synthetic", "veri"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
class TestEachPreset:
    def test_resolves_to_its_dataset_and_changes_only_what_differs(self, file: Path) -> None:
        resolved = resolve_settings(file.stem, None)
        assert resolved.settings.data.dataset == file.stem
        changed = [key for key, origin in resolved.origins.items() if origin == f"preset {file.stem}"]
        assert all(value_of(resolved.settings, key) != LEAVES[key].default for key in changed)

    def test_is_a_whole_configuration_file_too(self, file: Path) -> None:
        # Copied with `calr presets show NAME > my.yaml`, it must mean the same without -d.
        assert resolve_settings(None, file).settings == resolve_settings(file.stem, None).settings
        assert load_settings_file(file) == resolve_settings(file.stem, None).settings

    def test_header_tells_purpose_what_came_before_launch_and_an_override_that_works(
        self, file: Path
    ) -> None:
        header = HEADER.match(read_preset(file.stem))
        assert header is not None
        words = shlex.split(header[1])
        assert words[words.index("-d") + 1] == file.stem
        assignment = words[words.index("--set") + 1]
        plain, changed = resolve_settings(file.stem, None), resolve_settings(file.stem, None, [assignment])
        assert plain.settings != changed.settings


def test_the_datasets_differ_as_specified() -> None:
    market, duke, msmt, veri = (
        resolve_settings(name, None).settings for name in ("market1501", "dukemtmcreid", "msmt17", "veri")
    )
    assert [s.inter.iters for s in (market, duke, msmt, veri)] == [200, 400, 400, 400]
    assert [s.intra.clustering.num_clusters for s in (market, duke, msmt, veri)] == [600, 600, None, None]
    assert [s.intra.epochs for s in (market, duke, msmt, veri)] == [20, 20, 20, 25]
    assert (veri.data.height, veri.data.width) == (224, 224)
    assert (veri.intra.clustering.k1, veri.intra.clustering.k2) == (15, 4)


def test_unknown_preset() -> None:
    with pytest.raises(ConfigError) as caught:
        read_preset("verri")
    assert caught.value.lines() == [
        "no preset 'verri' among dukemtmcreid, market1501, msmt17, synthetic, veri; did you mean veri?"
    ]
