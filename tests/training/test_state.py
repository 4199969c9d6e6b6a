"""What an interrupted training keeps, and which states it refuses."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from calr_cli.errors import CheckpointError
from calr_cli.models.encoder import Encoder
from calr_cli.training.checkpoint import ModelCard, load_model, save_state
from calr_cli.training.networks import Networks
from calr_cli.training.optim import build_optimiser
from calr_cli.training.state import EpochUnderWay, TrainingState
from tests.support.epoch_figures import inter_epoch


def state(images: str = "abc") -> TrainingState:
    encoder = Encoder("resnet18")
    return TrainingState(
        Networks(encoder, build_optimiser(encoder.parameters(), lr=0.1, weight_decay=0)), images
    )


def test_everything_comes_back(tmp_path: Path) -> None:
    kept = state()
    kept.epoch, kept.figures, kept.best = 2, [inter_epoch(0), inter_epoch(1)], {"epoch": 1, "score": 0.5}
    labels, rows = {"labels": torch.arange(3)}, {"memory": torch.eye(3), "own": torch.ones(1, 2)}
    kept.under_way = EpochUnderWay(labels, rows, {"extract": 1.0, "cluster": 2.0}, torch.ones(4, 2))
    kept.save(tmp_path / "state.pth", {"seed": 1})
    found = state()
    assert found.restore(tmp_path / "state.pth")
    assert (found.epoch, found.figures, found.best) == (2, kept.figures, kept.best)
    assert found.position() == "after 2 epochs and 4 iterations"
    assert found.under_way is not None
    assert torch.equal(found.under_way.rows["memory"], torch.eye(3))
    weights = kept.networks.encoder.state_dict()
    for name, value in found.networks.encoder.state_dict().items():
        assert torch.equal(value, weights[name])


def test_no_file_is_no_state(tmp_path: Path) -> None:
    assert not state().restore(tmp_path / "state.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"encoder": {}, "epoch": 1},
            r"state\.pth was written by an older version.*start a new run$",
        ),
        ({"networks": {}, "images": "other"}, r"state\.pth is the state of a training on other images: "),
    ],
)
def test_a_state_that_would_lead_astray_is_refused_in_one_line(
    tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    save_state(tmp_path / "state.pth", content)
    with pytest.raises(CheckpointError, match=message) as caught:
        state().restore(tmp_path / "state.pth")
    assert len(caught.value.lines()) == 1


def test_a_model_that_an_older_version_wrote_is_read(tmp_path: Path) -> None:
    encoder = Encoder("resnet18", "avg")
    card = asdict(ModelCard("shop", "inter", 3, "resnet18", "avg", 64, 32))
    del card["images"]
    content = {"format": "calr 1", "card": card, "state_dict": encoder.state_dict()}
    torch.save(content, tmp_path / "model.pth")
    found, read = load_model(tmp_path / "model.pth")
    assert (read.epoch, read.images) == (3, None)
    assert torch.equal(found.neck.weight, encoder.neck.weight)
