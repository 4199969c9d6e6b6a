from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from calr_cli.config.schema import Settings
from calr_cli.config.wording import LEAVES, choices, expected
from calr_cli.models.backbones import ARCHS


def test_defaults_are_the_specified_ones() -> None:
    settings = Settings()
    intra, inter = settings.intra, settings.inter
    assert settings.seed == 1
    assert (settings.data.height, settings.data.width) == (256, 128)
    assert (settings.model.arch, settings.model.pooling) == ("resnet50", "gem")
    assert (intra.epochs, intra.iters, intra.batch_size, intra.num_instances) == (20, 100, 64, 4)
    assert (inter.epochs, inter.iters, inter.batch_size, inter.num_instances) == (50, 400, 256, 16)
    assert (intra.clustering.num_clusters, intra.clustering.k1, intra.clustering.k2) == (None, 30, 6)
    assert inter.clustering.model_dump() == {
        "method": "infomap",
        "standardise": False,
        "max_outliers": 0.25,
        "k": 15,
        "min_similarity": 0.5,
        "min_cluster_size": 5,
        "eps": 0.6,
        "min_samples": 4,
        "k1": 30,
        "k2": 6,
    }
    assert inter.refinement.model_dump() == {"enabled": True, "pivot": "best", "schedule": "always"}
    assert (inter.camera.weight, inter.camera.alpha, inter.camera.adversarial_epochs) == (None, 1.0, 3)
    assert inter.weights.model_dump() == {"mode": "entropy", "start_epoch": 5, "floor": 0.0}
    for stage in (intra, inter):
        assert stage.memory.model_dump() == {"temperature": 0.05, "momentum": 0.1, "mode": "all"}
        assert stage.optimiser.model_dump() == {
            "lr": 3.5e-4,
            "weight_decay": 5e-4,
            "step_size": 20,
            "gamma": 0.1,
            "name": "adam",
            "momentum": 0.9,
            "decayed": "all",
            "warmup_epochs": 0,
        }
    assert settings.augment.model_dump() == {
        "flip_probability": 0.5,
        "padding": 10,
        "erasing_probability": 0.5,
        "erasing_area_min": 0.02,
        "erasing_area_max": 0.4,
        "erasing_aspect_min": 0.3,
    }
    assert settings.evaluation.rerank.model_dump() == {"k1": 20, "k2": 6, "lambda_value": 0.3}


@pytest.mark.parametrize("key", LEAVES)
def test_every_setting_says_what_it_means_where_it_is_from_and_what_it_may_be(key: str) -> None:
    assert re.fullmatch(r"[^\n|]+ \[(paper|release|field|ours)\]", str(LEAVES[key].description))
    assert expected(LEAVES[key])


def test_architectures_are_those_the_models_room_builds() -> None:
    # The names stand in both rooms, so that resolving settings does not import torch; this keeps them one.
    assert choices(LEAVES["model.arch"]) == ARCHS


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().inter.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("inter.epochs", "a whole number from 1"),
        ("intra.clustering.num_clusters", "a whole number from 2, or null"),
        ("inter.memory.temperature", "a number above 0"),
        ("inter.memory.momentum", "a number from 0 to 1"),
        ("inter.optimiser.gamma", "a number above 0, at most 1"),
        ("inter.camera.weight", "a number from 0, or null"),
        ("inter.camera.enabled", "true or false"),
        ("inter.memory.mode", "one of all, hard"),
        ("data.dataset", "text"),
    ],
)
def test_expected_in_words(key: str, words: str) -> None:
    assert expected(LEAVES[key]) == words
