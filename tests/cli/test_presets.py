from __future__ import annotations

from calr_cli.config.loading import preset_names, read_preset, read_recipe, recipe_names
from tests.cli.conftest import Calr


def test_list_names_all_with_their_purpose_and_recipes_apart(calr: Calr) -> None:
    answer = calr("presets", "list", "--json").json
    presets, recipes = answer["presets"], answer["recipes"]
    assert (list(presets), list(recipes)) == (preset_names(), recipe_names())
    assert recipes["plus"].startswith("more accurate than the published method")
    assert recipes["calr"].startswith("the published method")
    tables = calr("presets", "list").stdout.split("\n\n")
    for table, kind, purposes in zip(tables, ("preset", "recipe"), (presets, recipes), strict=True):
        head, *lines = table.splitlines()
        assert head.split() == [kind, "purpose"]
        assert [line.split(maxsplit=1) for line in lines] == [[name, purposes[name]] for name in purposes]


def test_show_is_the_file_as_it_is(calr: Calr) -> None:
    assert calr("presets", "show", "veri").stdout == read_preset("veri")
    assert calr("presets", "show", "market").stdout == read_preset("market1501")
    assert calr("presets", "show", "plus").stdout == read_recipe("plus")


def test_show_of_an_unknown_one(calr: Calr) -> None:
    presets = "dukemtmcreid, market1501, msmt17, synthetic, veri"
    for name, nearest in (("very", "veri"), ("pluss", "plus")):
        answer = calr("presets", "show", name)
        assert (answer.exit_code, answer.stdout) == (1, "")
        assert answer.errors == [
            f"error: no preset '{name}' among {presets}, and no recipe among calr, plus; "
            f"did you mean {nearest}?"
        ]
