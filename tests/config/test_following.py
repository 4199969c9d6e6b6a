"""The rules by which settings follow a user's own images, from 20 to 100,000 of them and in odd shapes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from calr_cli.config.following import (
    OwnImages,
    batch_size,
    input_size,
    iterations,
    min_cluster_size,
    num_instances,
    own_images,
    reciprocal_neighbours,
)
from calr_cli.config.loading import flat_settings, preset_names, print_config, resolve_settings
from calr_cli.config.schema import Settings
from calr_cli.config.wording import FOLLOWING
from calr_cli.errors import ConfigError, DataError
from calr_cli.events import SilentReporter
from calr_cli.prepare.card import card_path
from calr_cli.prepare.own_images import prepare_own_images
from tests.support.made_up import write_image

SHOP = OwnImages(images=1200, cameras=3, width=60, height=150)
COUNTS = [1, 20, 74, 300, 592, 1200, 5000, 13_000, 38_000, 100_000]
SHAPES = [(128, 64), (128, 48), (20, 10), (400, 400), (300, 500), (120, 900), (900, 120), (1080, 1920)]


def resolved(own: OwnImages = SHOP, **more: Any) -> Any:
    return resolve_settings("shop", None, own_images=lambda name: own if name == "shop" else None, **more)


def values(own: OwnImages = SHOP, **more: Any) -> dict[str, Any]:
    return flat_settings(resolved(own, **more).settings)


def test_the_settings_that_follow_are_those_named_in_the_schema() -> None:
    stages = ("iters", "batch_size", "num_instances", "clustering.k1")
    assert {
        "data.height",
        "data.width",
        "inter.clustering.min_cluster_size",
        *(f"{stage}.{name}" for stage in ("intra", "inter") for name in stages),
    } == FOLLOWING
    origins = resolved().origins
    assert {key for key, origin in origins.items() if origin.startswith("auto: ")} == FOLLOWING


def test_a_shop_by_hand() -> None:
    got = values()
    assert {key: got[key] for key in sorted(FOLLOWING)} == {
        "data.height": 288,  # 150 : 60 over 32,768 pixels is 286 x 114
        "data.width": 112,
        "inter.batch_size": 128,  # 256 is more than 1200 / 8 = 150
        "inter.clustering.k1": 30,
        "inter.clustering.min_cluster_size": 5,
        "inter.iters": 29,  # 3600 / 128
        "inter.num_instances": 8,  # 128 / 16
        "intra.batch_size": 32,  # 400 of a camera: 50
        "intra.clustering.k1": 20,  # the root of 400
        "intra.iters": 38,  # 1200 / 32
        "intra.num_instances": 4,
    }


@pytest.mark.parametrize("cameras", [1, 2, 15])
@pytest.mark.parametrize("images", COUNTS)
def test_any_number_of_images_gives_settings_that_make_sense(images: int, cameras: int) -> None:
    got = values(OwnImages(images, cameras, 64, 128))
    default = flat_settings(Settings())
    for stage, count in (("intra", images // cameras), ("inter", images)):
        batch, iters = got[f"{stage}.batch_size"], got[f"{stage}.iters"]
        assert 16 <= batch <= default[f"{stage}.batch_size"]
        assert batch == 16 or batch <= count / 8
        assert 4 <= got[f"{stage}.num_instances"] <= batch / 4
        assert iters * batch >= count  # every image once
        assert iters <= default[f"{stage}.iters"] or (iters - 1) * batch < count
        assert iters == 1 or iters * batch < 3 * count + batch
        assert 6 <= got[f"{stage}.clustering.k1"] <= 30
        assert got[f"{stage}.clustering.k1"] == 6 or got[f"{stage}.clustering.k1"] ** 2 <= count
    assert 2 <= got["inter.clustering.min_cluster_size"] <= 5


def test_sets_like_the_published_ones_get_about_the_published_settings() -> None:
    msmt17 = values(OwnImages(32_621, 15, 64, 128))
    default = flat_settings(Settings())
    near = {"inter.iters": 383}
    assert {key: msmt17[key] for key in FOLLOWING} == {key: default[key] for key in FOLLOWING} | near


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_the_input_has_the_shape_of_the_images_and_no_more_pixels_than_the_published(
    height: int, width: int
) -> None:
    high, wide = input_size(height, width)
    assert high % 16 == wide % 16 == 0
    assert min(high, wide) >= 32
    assert high * wide <= 1.2 * 256 * 128
    assert high * wide <= 1.5 * 4 * height * width or min(high, wide) == 32
    ratio = min(max(height / width, 1 / 4), 4)
    assert 0.8 < high / wide / ratio < 1.25 or min(high, wide) == 32


def test_more_images_never_mean_smaller_batches_clusters_or_sets() -> None:
    for rule in (
        lambda count: batch_size(count, 256),
        reciprocal_neighbours,
        lambda count: min_cluster_size(count, 4),
        lambda count: iterations(count, 64, 400),
    ):
        found = [rule(count) for count in range(1, 40_000, 97)]
        assert found == sorted(found)
    assert [num_instances(size) for size in (1, 3, 4)] == [1, 3, 4]


def test_whatever_is_given_wins_and_decides_what_follows_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("my.yaml")
    file.write_text("data: {dataset: shop, height: 64}\nintra: {iters: 7}\n", encoding="utf-8")
    flags = {"inter.num_instances": ("--num-instances", "2")}
    found = resolve_settings(
        None, file, ["inter.batch_size=300", "intra.clustering.k2=25"], flags, own_images=lambda name: SHOP
    )
    keys = {
        "data.height": (64, "--config my.yaml"),
        "intra.iters": (7, "--config my.yaml"),
        "inter.batch_size": (300, "--set"),
        "inter.num_instances": (2, "--num-instances"),
        "inter.iters": (12, "auto: an epoch sees every image about three times (of many images: once)"),
        "intra.clustering.k1": (25, "auto: the root of the number of images (stage 1: of a camera), 6 to 30"),
        "intra.network": ("shared", "recipe plus (own images)"),
    }
    got = flat_settings(found.settings)
    assert {key: (got[key], found.origins[key]) for key in keys} == keys
    assert values(assignments=["inter.batch_size=6"])["inter.num_instances"] == 4
    assert values(assignments=["inter.batch_size=3"])["inter.num_instances"] == 3


def test_a_wrong_value_is_told_as_ever() -> None:
    with pytest.raises(ConfigError) as caught:
        resolved(assignments=["inter.batch_size=many", "inter.iters=0", "intra.batch_size=0"])
    assert caught.value.lines() == [
        "intra.batch_size = 0 (--set) must be a whole number from 2",
        "inter.iters = 0 (--set) must be a whole number from 1",
        "inter.batch_size = many (--set) must be a whole number from 2",
    ]


def test_auto_may_be_written_for_own_images_only(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("inter: {iters: auto, batch_size: 64}\n", encoding="utf-8")
    found = resolve_settings("shop", file, own_images=lambda name: SHOP)
    assert found.origins["inter.iters"].startswith("auto: ")
    assert found.settings.inter.iters == 57  # 3600 / 64
    again = resolve_settings("shop", file, ["inter.batch_size=auto"], own_images=lambda name: SHOP)
    assert again.settings.inter.batch_size == 128
    with pytest.raises(ConfigError) as caught:
        resolve_settings("veri", None, ["inter.iters=auto"], own_images=lambda name: None)
    assert caught.value.lines() == [
        "inter.iters = auto (--set): only a new training on your own images chooses a value"
    ]


@pytest.mark.parametrize("dataset", preset_names())
def test_presets_stay_as_they_are(dataset: str) -> None:
    plain, asked = resolve_settings(dataset, None), resolve_settings(dataset, None, own_images=own_images)
    assert (asked.settings, asked.origins) == (plain.settings, plain.origins)


def test_the_recipe_for_own_images_gives_way_to_files_and_to_other_recipes(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("inter: {average: 0.5}\n", encoding="utf-8")
    found = resolve_settings("shop", file, own_images=lambda name: SHOP)
    assert (found.settings.inter.average, found.settings.inter.start) == (0.5, "intra")
    published, plain = values(recipe="calr"), flat_settings(Settings())
    assert {key for key, value in published.items() if value != plain[key]} <= {"data.dataset", *FOLLOWING}
    asked = resolved(recipe="plus")
    assert asked.origins["inter.start"] == "recipe plus"
    assert asked.settings == resolved().settings


def test_print_config_says_why() -> None:
    lines = print_config(resolved()).splitlines()
    assert "  height: 288  # auto: the shape of the images, at most twice their size" in lines


def test_what_is_known_of_prepared_images(tmp_path: Path) -> None:
    for number in range(7):
        image = tmp_path / "images" / f"c{number % 2}_{number}.png"
        image.parent.mkdir(exist_ok=True)
        write_image(image, number)
    card = prepare_own_images(tmp_path / "images", "shop", r"c(?P<camid>\d)_", None, 1, SilentReporter())
    assert own_images("shop") == OwnImages(7, 2, card.sizes.width[1], card.sizes.height[1])
    assert own_images("veri") is own_images("nothing") is None
    card_path("shop").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"^the card of shop is damaged\. Run `calr prepare-data` with its"):
        own_images("shop")


def test_how_images_are_described() -> None:
    assert str(SHOP) == "1,200 images of 3 cameras, median 150 x 60 pixels"
    one = dataclasses.replace(SHOP, cameras=1)
    assert str(one) == "1,200 images of 1 camera, median 150 x 60 pixels"
