"""What a run leaves on disk: a model to use, and the state to resume from."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from calr_cli.data.augment import IMAGENET, PixelStatistics
from calr_cli.errors import CalrError, CheckpointError
from calr_cli.files import atomic_write
from calr_cli.models.encoder import Encoder
from calr_cli.models.foreign import ForeignWeights, build_foreign, foreign_weights
from calr_cli.models.reading import safe_load

_FORMAT = "calr 1"


@dataclass(frozen=True)
class ModelCard:
    """What a model file says about its model.

    Attributes:
        dataset: Name of the dataset it was trained on.
        stage: ``intra`` or ``inter``.
        epoch: Epochs of training behind it.
        arch: Backbone.
        pooling: Pooling.
        height: Of the input, pixels.
        width: Of the input, pixels.
        calibration: What its similarities mean, by ``calr evaluate --calibrate``; None: not measured.
        images: `ImageSet.fingerprint` of the images it was trained on; None: of an older calr.
        mean: Of pixels between 0 and 1, by which the input is normalised; ImageNet's in older files.
        std: Standard deviation to it.
    """

    dataset: str
    stage: str
    epoch: int
    arch: str
    pooling: str
    height: int
    width: int
    calibration: Mapping[str, Any] | None = None
    images: str | None = None
    mean: tuple[float, float, float] = IMAGENET.mean
    std: tuple[float, float, float] = IMAGENET.std


def save_model(path: Path, encoder: Encoder, card: ModelCard) -> None:
    """Write the encoder and its card to ``path``, whole or not at all.

    Raises:
        OSError: The folder cannot be written or the disk is full.
    """
    _save(path, {"format": _FORMAT, "card": asdict(card), "state_dict": encoder.state_dict()})


def load_model(path: Path) -> tuple[Encoder, ModelCard]:
    """The encoder and card written by `save_model`, on the CPU, in evaluation mode.

    Nothing in the file is executed.

    Raises:
        CheckpointError: No such file, damaged or cut short, or not a model of calr.
    """
    opened = open_model(path)
    if isinstance(opened, ForeignWeights):
        raise CheckpointError(
            f"{path} is not a model written by calr", "Give the model.pth of a finished run"
        )
    return opened


def open_model(path: Path) -> tuple[Encoder, ModelCard] | ForeignWeights:
    """What `load_model` returns, or the weights of a network that another program trained.

    Raises:
        CheckpointError: No such file, damaged or cut short, or no network that calr recognises.
    """
    content = safe_load(path, CheckpointError)
    if not isinstance(content, Mapping) or content.get("format") != _FORMAT:
        return foreign_weights(content, path, CheckpointError)
    if "card" not in content:
        raise CheckpointError(f"{path} is the state of a run, not a model", "Give its model.pth or last.pth")
    try:
        card = ModelCard(**content["card"])
        encoder = Encoder(card.arch, card.pooling, card.height, card.width)
        encoder.statistics = PixelStatistics(card.mean, card.std)
        encoder.load_state_dict(content["state_dict"])
    except (TypeError, KeyError, RuntimeError, CalrError) as error:
        reason = textwrap.shorten(f"{type(error).__name__} {error}", 200)
        raise CheckpointError(f"{path} does not hold the network that it names: {reason}") from None
    return encoder.eval(), card


def load_encoder(path: Path, arch: str, pooling: str, height: int = 256, width: int = 128) -> Encoder:
    """The network of a model file, in evaluation mode; all but ``path`` is for foreign ones.

    Raises:
        CheckpointError: See `open_model`, or the tensors are not those of ``arch``.
    """
    opened = open_model(path)
    if isinstance(opened, ForeignWeights):
        return build_foreign(opened, arch, pooling, CheckpointError, height, width)
    return opened[0]


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write the state of an unfinished run, whole or not at all; tensors and plain values only.

    Raises:
        OSError: The folder cannot be written or the disk is full.
    """
    _save(path, {"format": _FORMAT, "state": dict(state)})


def load_state(path: Path) -> dict[str, Any]:
    """The state written by `save_state`, its tensors on the CPU.

    Raises:
        CheckpointError: No such file, damaged or cut short, or not such a state.
    """
    content = safe_load(path, CheckpointError)
    if not isinstance(content, Mapping) or content.get("format") != _FORMAT or "state" not in content:
        raise CheckpointError(f"{path} is not the state of a run of calr")
    state: dict[str, Any] = content["state"]
    return state


def _save(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch's writer, of a full disk, after the system's own error
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__context__
            if cause is None:
                raise
            raise cause from None
