"""Checks whether a file without a known hash can be the published weights of an architecture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from calr_cli.errors import WeightsError
from calr_cli.models.backbones import build_backbone
from calr_cli.models.encoder import Encoder
from calr_cli.models.foreign import difference, fitted, foreign_weights
from calr_cli.models.reading import safe_load, state_dict_of

IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class NetworkCheck:
    """A check for finite tensors with exactly the keys and shapes of ``arch`` and its classifier.

    The check cannot tell whether the file is the published training of this network; only a hash could.
    """

    arch: str

    def problem(self, path: Path) -> str:
        """See `downloads.Check.problem`."""
        try:
            weights = state_dict_of(safe_load(path, WeightsError), path, WeightsError)
        except WeightsError as error:
            return error.problems[0].removeprefix(f"{path} ")
        found = {key: tuple(value.shape) for key, value in weights.items()}
        expected = shapes(self.arch)
        differing = [key for key in expected.keys() | found.keys() if found.get(key) != expected.get(key)]
        # Files from before PyTorch 0.4.1 do not count batches; nothing here uses the count.
        differing = [key for key in differing if key in found or not key.endswith("num_batches_tracked")]
        if differing:
            return (
                f"is of another network than {self.arch}: {len(differing)} keys are missing, left over or of "
                f"another shape, {min(differing)} among them"
            )
        return _finiteness(weights.values())


@dataclass(frozen=True)
class VitCheck:
    """A check for finite tensors with the keys and shapes of a vision transformer, in any program's layout.

    Heads may lie beside it, and the grid of the position embeddings may be any that calr can tell.
    """

    arch: str

    def problem(self, path: Path) -> str:
        """See `downloads.Check.problem`."""
        try:
            weights = foreign_weights(safe_load(path, WeightsError), path, WeightsError)
        except WeightsError as error:
            return error.problems[0].removeprefix(f"{path} ")
        if weights.arch != self.arch:
            return f"is of {weights.arch}, not of {self.arch}"
        with torch.device("meta"):
            encoder = Encoder(self.arch, "cls")
        if problem := difference(encoder, fitted(weights, encoder), ("backbone.",)):
            return problem.removeprefix(f"{path} ")
        return _finiteness(weights.tensors.values())


def _finiteness(tensors: Iterable[Tensor]) -> str:
    finite = all(bool(torch.isfinite(value).all()) for value in tensors)
    return "" if finite else "holds values that are not finite numbers"


def shapes(arch: str) -> dict[str, tuple[int, ...]]:
    """Every key of a ResNet's published ImageNet file, and the shape of its tensor."""
    with torch.device("meta"):
        backbone, feature_dim = build_backbone(arch)
    classifier = {"fc.weight": (IMAGENET_CLASSES, feature_dim), "fc.bias": (IMAGENET_CLASSES,)}
    return {key: tuple(value.shape) for key, value in backbone.state_dict().items()} | classifier
