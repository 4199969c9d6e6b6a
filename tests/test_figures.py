"""What is written of an epoch is read back, also by another version."""

from __future__ import annotations

import json
from typing import Any

import pytest

from calr_cli.figures import (
    BeforeAndAfter,
    Best,
    Choice,
    LabelQuality,
    RefinementQuality,
    TestFigures,
    epoch_from_json,
    from_json,
    to_json,
)
from tests.support.epoch_figures import inter_epoch, intra_epoch

QUALITY = LabelQuality(0.5, 0.25, 0.3, 0.5, 0.5, 0.5, 0.75, 8, 1, 9, 48)
CHANGE = BeforeAndAfter(QUALITY, QUALITY)


@pytest.mark.parametrize(
    "row",
    [
        intra_epoch(2, 7),
        inter_epoch(0),
        inter_epoch(3, quality=RefinementQuality(CHANGE, CHANGE, None), monitoring=TestFigures(12.5, 30.0)),
    ],
    ids=["stage 1", "stage 2", "everything known"],
)
def test_an_epoch_is_read_back(row: Any) -> None:
    content = json.loads(json.dumps(to_json(row)))
    assert epoch_from_json(content) == row
    assert epoch_from_json({**content, "of a later version": [1]}) == row


def test_what_is_unknown_is_null_and_what_there_is_not_is_left_out() -> None:
    content = to_json(inter_epoch(0))
    assert content["camera_loss"] is None
    assert content["zero_weight_clusters"] is None
    assert not {"quality", "monitoring"} & content.keys()
    assert to_json(TestFigures(1.0, 2.0)) == {"mAP": 1.0, "Rank-1": 2.0}


@pytest.mark.parametrize(
    "change", [{"loss": "low"}, {"loss": None}, {"seconds": 3}, {"monitoring": []}, {"epoch": 1.5}], ids=str
)
def test_a_figure_of_another_kind_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        epoch_from_json({**to_json(inter_epoch(0)), **change})


@pytest.mark.parametrize("name", ["loss", "epoch", "seconds"])
def test_a_figure_that_is_missing_is_named(name: str) -> None:
    content = to_json(inter_epoch(0))
    del content[name]
    with pytest.raises(KeyError, match=name):
        epoch_from_json(content)


def test_a_choice_of_models() -> None:
    choice = Choice({"1": 0.25, "2": 0.5}, Best(2, 0.5))
    assert from_json(Choice, json.loads(json.dumps(to_json(choice)))) == choice
    assert from_json(Choice, {}) == Choice()
