"""Loads the weights that training starts from: random, published, or a file of the user."""

from __future__ import annotations

from pathlib import Path

from calr_cli.errors import WeightsError
from calr_cli.models.conventions import TORCHVISION, TORCHVISION_MOBILENET
from calr_cli.models.encoder import Encoder
from calr_cli.models.foreign import ForeignWeights, difference, fitted, foreign_weights, grouped, hint_for
from calr_cli.models.reading import safe_load
from calr_cli.models.released_weights import RELEASES, cached_weights

BEYOND_BACKBONE = {"pooling.p": "exponent of GeM", "neck.running_mean": "neck"}
"""Keys that show that a file has more than a backbone."""


def load_pretrained(encoder: Encoder, source: str) -> str:
    """Load the weights of ``source`` into ``encoder``; on an error, ``encoder`` stays unchanged.

    Files of other programs, and models of calr, have more than a backbone. From these files the function also
    takes the exponent of GeM and the neck, if the encoder has the same parts. The encoder computes as before;
    see `build_foreign` for networks that compute differently.

    The function never downloads anything: nothing that takes minutes and a network should start without
    being asked for.

    Args:
        encoder: The encoder to fill, in place.
        source: ``none`` (stays as it is), ``imagenet`` or ``person`` (the cached release), or a file.

    Returns:
        One line that says what the network starts from.

    Raises:
        WeightsError: The weights are not cached, cannot be read, or are of another network.
    """
    if source == "none":
        return f"{encoder.arch} starts from random weights"
    if source in ("imagenet", "person"):
        path = cached_weights(encoder.arch, source)
        described = f"{RELEASES[encoder.arch].words} ({path.name})"
    else:
        path = Path(source).expanduser()
        described = str(path)
        if not path.exists():
            raise WeightsError(f"no weights file {path}", "Give a path, 'imagenet', 'person' or 'none'")
    weights = fitted(read_weights(path), encoder)
    if problem := difference(encoder, weights, ("backbone.",)):
        raise WeightsError(problem, hint_for(encoder.arch, weights))
    own = encoder.state_dict()
    taken = {
        name: value
        for name, value in weights.tensors.items()
        if name in own and own[name].shape == value.shape
    }
    encoder.load_state_dict(taken, strict=False)
    found = [words for name, words in BEYOND_BACKBONE.items() if name in taken]
    encoder.statistics = weights.statistics
    if found or weights.convention not in (TORCHVISION, TORCHVISION_MOBILENET):
        described += f" ({', '.join(['backbone', *found])} by the names of {weights.convention.programs})"
    if source not in ("imagenet", "person") and weights.unused:
        described += f"; left out: {', '.join(grouped(weights))}"
    if weights.convention.differences:
        described += f"; not computed as there: {', '.join(weights.convention.differences)}"
    return f"{encoder.arch} starts from {described}"


def read_weights(path: Path) -> ForeignWeights:
    """The tensors of a file of weights, under the names of `Encoder`; nothing in the file is executed.

    Raises:
        WeightsError: The file is missing, damaged or cut short, or has no network that calr recognises.
    """
    return foreign_weights(safe_load(path, WeightsError), path, WeightsError)
