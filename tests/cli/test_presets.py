from __future__ import annotations

from calr_cli.config.loading import preset_names, read_preset
from tests.cli.conftest import Calr


def test_list_names_all_with_their_purpose(calr: Calr) -> None:
    presets = calr("presets", "list", "--json").json["presets"]
    assert sorted(presets) == preset_names()
    lines = calr("presets", "list").stdout.splitlines()
    assert [line.split(maxsplit=1) for line in lines[1:]] == [[name, presets[name]] for name in presets]


def test_show_is_the_file_as_it_is(calr: Calr) -> None:
    assert calr("presets", "show", "veri").stdout == read_preset("veri")
    assert calr("presets", "show", "market").stdout == read_preset("market1501")


def test_show_of_an_unknown_one(calr: Calr) -> None:
    answer = calr("presets", "show", "very")
    assert answer.exit_code == 1
    assert answer.errors[0].startswith("error: no preset 'very' among ")
    assert answer.errors[0].endswith("; did you mean veri?")
