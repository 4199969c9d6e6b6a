"""Recognises networks that other programs trained, and builds them so that they compute the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from calr_cli.data.augment import PixelStatistics
from calr_cli.errors import CalrError
from calr_cli.models.backbones import ARCHS
from calr_cli.models.conventions import PROGRAMS, UNKNOWN, Convention, recognise
from calr_cli.models.encoder import Encoder
from calr_cli.models.non_local import NON_LOCAL, add_non_local, non_local_at_their_blocks
from calr_cli.models.reading import state_dict_of
from calr_cli.models.statistics import statistics_of, unusual
from calr_cli.models.vit import PATCH, VITS, VisionTransformer, resampled
from calr_cli.models.vit_files import POSITIONS, grid_in, require_buildable, vit_arch

KEYS_SHOWN = 8

NOTES = ("epoch", "best_mAP", "rank1", "metric")
"""Keys beside the state dict that programs write and that interest people."""

RESNETS: dict[tuple[tuple[int, ...], bool, bool], str] = {
    ((1, 1, 1, 1), False, False): "resnet_tiny",
    ((2, 2, 2, 2), False, False): "resnet18",
    ((3, 4, 6, 3), False, False): "resnet34",
    ((3, 4, 6, 3), True, False): "resnet50",
    ((3, 4, 23, 3), True, False): "resnet101",
    ((3, 8, 36, 3), True, False): "resnet152",
    ((3, 4, 6, 3), True, True): "resnet_ibn50a",
    ((3, 4, 23, 3), True, True): "resnet_ibn101a",
}
"""Blocks per stage, whether they have three convolutions, whether IBN-a -> architecture."""

KNOWN = f"Known are {', '.join(ARCHS)}, by the names of {PROGRAMS}"
"""Hint for a file that is not recognised."""


@dataclass(frozen=True)
class ForeignWeights:
    """The tensors of another program's file, under the names of `Encoder`.

    Attributes:
        path: The file.
        convention: Convention by which the file was recognised.
        arch: Architecture that has the file's layers.
        tensors: Name in `Encoder` -> tensor.
        unused: Keys of parts that play no part in features, such as a classifier.
        notes: Facts that the file records about its training.
        statistics: By which its pixels were normalised.
    """

    path: Path
    convention: Convention
    arch: str
    tensors: Mapping[str, Tensor]
    unused: tuple[str, ...]
    notes: Mapping[str, float]
    statistics: PixelStatistics

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with ``prefix``."""
        return {name: value for name, value in self.tensors.items() if name.startswith(prefix)}

    @property
    def non_local(self) -> list[str]:
        """The blocks after which a non-local block stands."""
        return [name.removesuffix(NON_LOCAL) for name in self.tensors if name.endswith(NON_LOCAL)]

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of patches of a vision transformer's input, where its number tells them."""
        return grid_in(self.tensors)

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Height and width that the network of a vision transformer was trained for, if it was for this."""
        return (self.grid[0] * PATCH, self.grid[1] * PATCH) if self.grid and self.part("neck.") else None

    @property
    def pooling(self) -> str | None:
        """``gem`` if the file has an exponent of GeM, else ``avg``; None if it has only a backbone.

        Of a vision transformer ``cls``.

        All of fast-reid's settings with non-local blocks use GeM, some of them with a fixed exponent of 3.
        """
        if self.arch in VITS:
            return "cls"
        if "pooling.p" in self.tensors or self.non_local:
            return "gem"
        return "avg" if self.part("neck.") else None


def foreign_weights(content: Any, path: Path, error_class: type[CalrError]) -> ForeignWeights:
    """Recognise what `safe_load` read from ``path``.

    Raises:
        CalrError: As ``error_class``: there is no state dict, or calr does not recognise it.
    """
    state = non_local_at_their_blocks(state_dict_of(content, path, error_class))
    require_buildable(path, state, error_class)
    if (convention := recognise(state)) is None:
        raise _unknown(path, state, error_class)
    named = {key: convention.name_of(key) for key in state}
    tensors = {name: state[key] for key, name in named.items() if name is not None}
    if (arch := vit_arch(path, tensors, error_class) or _resnet_or_mobilenet(tensors)) is None:
        raise _unknown(path, state, error_class)
    embedding = tensors.get("neck.0.weight")
    if embedding is not None and embedding.ndim == 4:  # a 1 x 1 convolution in place of a linear layer
        tensors["neck.0.weight"] = embedding.flatten(1)
    for name, value in tensors.items():  # by the lengths of some of them the network is built
        if (value.ndim == 0 or value.numel() == 0) and not name.endswith("num_batches_tracked"):
            raise error_class(f"{path}: {convention.key_of(name)} has the shape {tuple(value.shape)}")
    unused = tuple(key for key, name in named.items() if name is None)
    notes = {key: content[key] for key in NOTES if isinstance(content.get(key), int | float)}
    if (statistics := statistics_of(content, state, arch, tensors)) is None:
        raise error_class(f"{path} has a pixel_mean or pixel_std that is not three numbers, or not above 0")
    return ForeignWeights(path, convention, arch, tensors, unused, notes, statistics)


def build_foreign(
    weights: ForeignWeights,
    arch: str,
    pooling: str,
    error_class: type[CalrError],
    height: int = 256,
    width: int = 128,
) -> Encoder:
    """The network of another program's file, which computes as in that program, on the CPU, for evaluation.

    Args:
        weights: Tensors from `foreign_weights`.
        arch: One of ``ARCHS``.
        pooling: See `Encoder`; if the file has no exponent of GeM, it is 3.
        error_class: Class of the error to raise.
        height: Of the input, pixels.
        width: Of the input, pixels.

    Raises:
        CalrError: As ``error_class``: the tensors are not those of ``arch``.
    """
    encoder = Encoder(arch, pooling, height, width)
    weights, convention = fitted(weights, encoder), weights.convention
    if not convention.first_relu:
        encoder.backbone.add_module("relu", nn.Identity())
    if arch != "mobilenet_v2" and arch not in VITS:
        encoder.backbone.add_module("maxpool", nn.MaxPool2d(**convention.max_pooling))
        strided = "conv1" if arch in ("resnet18", "resnet34", "resnet_tiny") else "conv2"
        for layer in (f"layer4.0.{strided}", "layer4.0.downsample.0"):
            stride = (convention.last_stride, convention.last_stride)
            cast(nn.Conv2d, encoder.backbone.get_submodule(layer)).stride = stride
    blocks = dict(encoder.named_modules())
    for block in weights.non_local:
        if block in blocks:
            add_non_local(blocks[block], len(weights.tensors[block + NON_LOCAL]))
    if "neck.0.weight" in weights.tensors:
        dim = len(weights.tensors["neck.0.weight"])
        linear = nn.Linear(encoder.feature_dim, dim, bias="neck.0.bias" in weights.tensors)
        last = [nn.ReLU()] if convention.last_relu else []
        encoder.add_module("neck", nn.Sequential(linear, nn.BatchNorm1d(dim), *last))
        encoder.feature_dim = dim
    elif not weights.part("neck."):
        encoder.add_module("neck", nn.Identity())
    if problem := difference(encoder, weights, ("backbone.", "pooling.", "neck.", UNKNOWN)):
        raise error_class(problem, hint_for(arch, weights))
    encoder.load_state_dict(dict(weights.tensors), strict=False)
    encoder.statistics = weights.statistics
    return encoder.eval()


def fitted(weights: ForeignWeights, encoder: Encoder) -> ForeignWeights:
    """``weights`` with position embeddings for the input of ``encoder``, if both are vision transformers."""
    network, grid = encoder.backbone, weights.grid
    if grid is None or not isinstance(network, VisionTransformer):
        return weights
    positions = resampled(weights.tensors[POSITIONS].float(), grid, network.grid)
    return replace(weights, tensors={**weights.tensors, POSITIONS: positions})


def difference(encoder: Encoder, weights: ForeignWeights, parts: tuple[str, ...]) -> str:
    """What differs between ``parts`` of ``weights`` and the encoder, in one line; empty if nothing does.

    An exponent of GeM may be missing or superfluous, because users may override the pooling.
    """
    own = {name: value for name, value in encoder.state_dict().items() if name.startswith(parts)}
    theirs = {name: value for name, value in weights.tensors.items() if name.startswith(parts)}
    for tensors, others in ((own, theirs), (theirs, own)):
        if "pooling.p" not in others:
            tensors.pop("pooling.p", None)
    # Files from before PyTorch 0.4.1 do not count batches; nothing here uses the count.
    missing = [name for name in own if name not in theirs and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in theirs if name not in own]
    key_of = weights.convention.key_of
    misshapen = [
        f"{key_of(name)} {tuple(theirs[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in theirs and theirs[name].shape != own[name].shape
    ]
    kinds = {
        "missing keys": [key_of(name) for name in missing],
        "unexpected keys": [key_of(name) for name in unexpected],
        "keys of another shape": misshapen,
    }
    found = [f"{kind} ({len(keys)}): {_shortened(keys)}" for kind, keys in kinds.items() if keys]
    return f"{weights.path} does not fit {encoder.arch}: {'; '.join(found)}" if found else ""


def hint_for(arch: str, weights: ForeignWeights) -> str:
    """What to do if ``weights`` do not fit ``arch``."""
    if weights.arch == arch:
        return "Choose the architecture of that file with -a, or another file"
    return f"It looks like {weights.arch}: give -a {weights.arch}, or another file"


def describe(weights: ForeignWeights, arch: str, pooling: str) -> str:
    """One line: what was recognised, and what is computed as in that program or differently."""
    convention = weights.convention
    if arch in VITS:
        pooled = "class token" if pooling == "cls" else "mean of patches, not its class token"
    elif "pooling.p" in weights.tensors:
        own = f"GeM with p = {weights.tensors['pooling.p'][0]:.3g}"
        pooled = own if pooling == "gem" else f"average pooling, not its own {own}"
    else:
        pooled = "GeM with p = 3" if pooling == "gem" else f"average pooling ({convention.no_exponent})"
    if "neck.0.weight" in weights.tensors:
        neck = f"an embedding of {len(weights.tensors['neck.0.weight'])} and its batch norm"
    else:
        neck = "batch norm neck" if weights.part("neck.") else "no neck"
    more = [f"{len(weights.non_local)} non-local blocks"] if weights.non_local else []
    lists = {
        "pixels normalised by": [str(weights.statistics)] if unusual(weights.statistics, arch) else [],
        "computed as there": [*convention.differences, *more],
        "mind": convention.remarks,
        "not used": grouped(weights),
        "the file says": [f"{key} {value:.4g}" for key, value in weights.notes.items()],
    }
    parts = [f"{arch} by the names of {convention.programs}, {pooled}, {neck}"]
    parts += [f"{title}: {', '.join(items)}" for title, items in lists.items() if items]
    return f"{weights.path} is " + "; ".join(parts)


def describe_input(weights: ForeignWeights, height: int, width: int) -> str:
    """The size of the input, and whether ``weights`` are made for it."""
    size = f"input {height} x {width}"
    if weights.input_size is None:
        return f"{size} (--height, --width), which the file does not say"
    if weights.input_size == (height, width):
        return size
    return f"{size}, position embeddings resampled from those for {' x '.join(map(str, weights.input_size))}"


def _resnet_or_mobilenet(tensors: Mapping[str, Tensor]) -> str | None:
    if "backbone.features.0.0.weight" in tensors:
        return "mobilenet_v2"
    blocks = {tuple(name.split(".")[1:3]) for name in tensors if name.startswith("backbone.layer")}
    counts = Counter(stage for stage, _ in blocks)
    three = "backbone.layer1.0.conv3.weight" in tensors
    ibn = "backbone.layer1.0.bn1.IN.weight" in tensors
    return RESNETS.get((tuple(counts[f"layer{stage}"] for stage in range(1, 5)), three, ibn))


def _unknown(path: Path, state: Mapping[str, Tensor], error_class: type[CalrError]) -> CalrError:
    problem = f"{path} is no network that calr recognises; its keys: {_shortened(list(state))}"
    return error_class(problem, KNOWN)


def grouped(weights: ForeignWeights) -> list[str]:
    """What of ``weights`` is not used: each part by its name, with its number of keys."""
    names = sorted(weights.convention.names, key=len, reverse=True)

    def part(key: str) -> str:
        prefix = next((name for name in names if key.startswith(name)), "")
        return prefix + key.removeprefix(prefix).split(".")[0]

    return [f"{name} ({count})" for name, count in Counter(map(part, weights.unused)).items()]


def _shortened(keys: Sequence[str]) -> str:
    more = len(keys) - KEYS_SHOWN
    return ", ".join(keys[:KEYS_SHOWN]) + (f" and {more} more" if more > 0 else "")
