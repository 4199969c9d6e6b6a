"""Features of whatever images, by a trained model."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from calr_cli.allocation import named_when_full, require_memory
from calr_cli.config.layers import Given, Layer, flattened
from calr_cli.config.loading import flat_settings, validated
from calr_cli.config.schema import Settings
from calr_cli.data.augment import IMAGENET
from calr_cli.data.images import content_digest
from calr_cli.distributed.devices import choose_devices, named_device
from calr_cli.errors import CheckpointError, ConfigError, DataError
from calr_cli.evaluation.calibration import Calibration
from calr_cli.events import Reporter, SilentReporter
from calr_cli.method.build import build_extractor, ready
from calr_cli.method.estimates import memory_limit
from calr_cli.models.encoder import Encoder
from calr_cli.models.folding import fold_batch_norms
from calr_cli.models.foreign import ForeignWeights, build_foreign, describe, describe_input
from calr_cli.threads import available_cores
from calr_cli.training.checkpoint import ModelCard, open_model
from calr_cli.training.precision import choose_precision
from calr_cli.types import FloatArray
from calr_cli.use.feature_files import Features, not_unit
from calr_cli.use.finite import require_finite
from calr_cli.use.readable import AnyImage, Channels, ReadableImages

FROM_MODEL = {
    "arch": "model.arch",
    "pooling": "model.pooling",
    "height": "data.height",
    "width": "data.width",
    "mean": "data.mean",
    "std": "data.std",
}
"""What a model file of calr says by itself: field of its card -> setting."""

Precision = Literal["fp32", "bf16"]

SHOWN = 20
"""Images that cannot be read that are named before the rest is only counted."""


@dataclass(frozen=True)
class Embedder:
    """A model, ready to turn images into features.

    Attributes:
        encoder: On its device, with what it computes in; not to be changed.
        settings: Of input size, batches and memory.
        calibration: What its similarities mean; None where that was not measured.
        dataset: Name of the one it was trained on; None where its file does not say.
    """

    encoder: Encoder
    settings: Settings
    calibration: Calibration | None
    dataset: str | None = None

    @cached_property
    def _folded(self) -> Encoder:
        """Made once: for a single image it takes longer than the image."""
        return fold_batch_norms(self.encoder.eval())

    @cached_property
    def key(self) -> str:
        """The same for models that give the same features, but for rounding, hexadecimal."""
        data = self.settings.data
        digest = blake2b(digest_size=16)
        statistics = self.encoder.statistics
        pixels = "" if statistics == IMAGENET else f" {statistics!r}"
        digest.update(f"{self.encoder} {data.height} {data.width}{pixels}".encode())
        for name, tensor in self.encoder.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def precision(self) -> Precision:
        """What it computes in: features of different precision compare badly."""
        return "bf16" if self.encoder.precision == torch.bfloat16 else "fp32"

    def computing_in(self, precision: Precision) -> Embedder:
        """The same model, computing in ``precision``.

        Raises:
            ConfigError: Its device cannot.
        """
        if precision == self.precision:
            return self
        encoder = copy.copy(self.encoder)  # with the same weights
        encoder.precision = choose_precision(precision, encoder.device)
        return replace(self, encoder=encoder)

    def embed(
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        title: str = "images",
        reporter: Reporter | None = None,
    ) -> tuple[Features, list[str]]:
        """Features of the images that can be read, in their order, and a line for each of the others.

        Args:
            paths: Image files, or a single one.
            title: Of the progress shown.
            reporter: Shown a progress and warned of the first of these lines; None: nothing is said.

        Raises:
            DataError: No image can be read, or something else than paths was given.
            CheckpointError: The model gives something else than numbers.
            MemoryLimitError: The features do not fit, or a batch does not fit into the GPU.
        """
        if isinstance(paths, str | os.PathLike):
            paths = [paths]
        given = list(paths) if isinstance(paths, Iterable) else [paths]
        if not all(isinstance(path, str | os.PathLike) for path in given):
            raise DataError("embed takes paths of image files", "For arrays and images there is embed_images")
        if not given:
            raise DataError("there is no image: the list of paths is empty")
        files, reporter = [str(path) for path in given], reporter or SilentReporter()
        rows, found = self.rows_of(files, title, reporter)
        problems = [found[position] for position in sorted(found)]
        if len(problems) == len(files):
            raise nothing_readable(problems)
        warn_of(problems, reporter)
        kept = [position for position in range(len(files)) if position not in found]
        names = tuple(files[position] for position in kept)
        return Features(names, rows if not found else rows[kept], self.key, self.precision), problems

    def embed_images(
        self, images: Iterable[AnyImage], channels: Channels = "rgb"
    ) -> tuple[list[FloatArray | None], list[str]]:
        """Features of images that a program has in memory: what `embed` gives for the same ones in PNG files.

        Args:
            images: Arrays (H, W, 3) uint8 of any size, grey (H, W) or with a fourth channel, images of
                Pillow, or paths.
            channels: Order of the colours in arrays: ``rgb``, or ``bgr`` as OpenCV has them.

        Returns:
            For each image its unit row (D,), None where there is none; and a line for each of those.

        Raises:
            DataError: Something else than a list of images.
            ConfigError: ``channels`` is unknown.
            CheckpointError: The model gives something else than numbers.
            MemoryLimitError: The features do not fit, or a batch does not fit into the GPU.
        """
        if channels not in get_args(Channels):
            raise ConfigError(f"channels {channels!r} is not known", "Choose rgb or bgr")
        is_one = isinstance(images, str | os.PathLike | torch.Tensor) or not isinstance(images, Iterable)
        if is_one or (isinstance(images, np.ndarray) and images.ndim < 4 and images.dtype != object):
            raise DataError("embed_images takes a list of images", "For a single one: embed_images([image])")
        images = list(images)
        if not images:
            return [], []
        rows, found = self.rows_of(images, "images", SilentReporter(), channels=channels)
        slots = [None if position in found else row for position, row in enumerate(rows)]
        return slots, [found[position] for position in sorted(found)]

    def rows_of(
        self,
        images: Sequence[AnyImage],
        title: str,
        reporter: Reporter,
        *,
        channels: Channels = "rgb",
        digests: Sequence[str] = (),
    ) -> tuple[FloatArray, dict[int, str]]:
        """Features of N images, and why some have none.

        Args:
            images: See `embed_images`.
            title: Of the progress shown.
            reporter: Shown a progress.
            channels: Order of the colours in arrays.
            digests: What the content of the files has to be; none: whatever it is.

        Returns:
            (N, D) float32 unit rows, and position -> line of those images whose row means nothing.

        Raises:
            CheckpointError: A feature is not of unit length.
            MemoryLimitError: The features do not fit, or a batch does not fit into the GPU.
        """
        size = 8 * len(images) * self.encoder.feature_dim
        limit = memory_limit(self.settings)
        require_memory(size, limit, f"features of {len(images):,} images", "Give fewer images at a time")
        data = self.settings.data
        source = ReadableImages(images, data.height, data.width, data.workers, channels, digests)
        batch_size = self.settings.evaluation.batch_size
        with named_when_full(self.encoder.device, f"Lower evaluation.batch_size ({batch_size} now)"):
            rows: FloatArray = build_extractor(self.settings, reporter)(self._folded, source, title=title)
        if bad := [position for position in not_unit(rows).tolist() if position not in source.problems]:
            first = images[bad[0]]
            where = str(first) if isinstance(first, str | os.PathLike) else f"image {bad[0]}"
            raise CheckpointError(
                f"the model gives no feature of unit length for {where} and {len(bad) - 1} more: its numbers "
                "overflow, or are all zero",
                "Its training went wrong: take another model",
            )
        return rows, source.problems


def nothing_readable(problems: Sequence[str]) -> DataError:
    """The error where each image has one of these ``problems``."""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return DataError(f"{problems[0]}{more}", "There is no image that can be read")


def warn_of(problems: Sequence[str], reporter: Reporter) -> None:
    """Tell which images are left out: the first of them, and how many more."""
    for problem in problems[:SHOWN]:
        reporter.warning(f"{problem}: left out")
    if len(problems) > SHOWN:
        reporter.warning(f"and {len(problems) - SHOWN} more images that cannot be read")


def load_embedder(
    path: str | Path, *, device: str | torch.device | None = None, settings: Mapping[str, Any] | None = None
) -> Embedder:
    """A trained model, ready to embed images; nothing is printed.

    Args:
        path: ``model.pth`` of a run, or a model of another program that calr recognises.
        device: Where it works; None: on a GPU where there is one.
        settings: Dotted key -> value: how it works (``evaluation.batch_size``, ``data.workers``), and what
            a file of another program does not say (``data.height``, ``data.width``).

    Raises:
        CheckpointError: No such file, no network that calr recognises, or settings that contradict it.
        ConfigError: A wrong setting, or a device that is not there.
    """
    if not isinstance(path, str | os.PathLike) or not str(path):
        raise CheckpointError(
            f"{path!r} is not the path of a model file", "Give the model.pth of a finished run"
        )
    if not isinstance(settings, Mapping | None):
        raise ConfigError("settings have to be a mapping", 'Write {"evaluation.batch_size": 64}')
    reporter, problems = SilentReporter(), list[str]()
    given = flattened(settings or {}, "", "settings", problems)
    if problems:
        raise ConfigError(problems)
    where = choose_devices(None, None, None, reporter)[0] if device is None else named_device(device)
    return open_embedder(Path(path), where, given, reporter)


def open_embedder(path: Path, device: torch.device, given: Layer, reporter: Reporter) -> Embedder:
    """See `load_embedder`; ``given`` says of each setting where it was given, for errors.

    Raises:
        CheckpointError: No such file, no network that calr recognises, or a setting that contradicts it.
        ConfigError: A wrong setting.
    """
    opened = open_model(path)
    if isinstance(opened, ForeignWeights):
        known = {key: Given(value, str(path)) for key, value in recognised(opened).items()}
        settings = validated(known | given, []).settings
        model, data = settings.model, settings.data
        described = describe(opened, model.arch, model.pooling)
        reporter.note(f"{described}; {describe_input(opened, data.height, data.width)}")
        encoder = build_foreign(opened, model.arch, model.pooling, CheckpointError, data.height, data.width)
        require_finite(encoder, path)
        return Embedder(ready(settings, encoder, device), settings, None)
    encoder, card = opened
    require_finite(encoder, path)
    told = flat_settings(validated(given, []).settings)
    refuse_other_network(path, card, {n: told[key] for n, key in FROM_MODEL.items() if key in given})
    of_card = {key: Given(getattr(card, name), str(path)) for name, key in FROM_MODEL.items()}
    settings = validated(given | of_card, []).settings
    calibration = calibration_of(card, path)
    return Embedder(ready(settings, encoder, device), settings, calibration, card.dataset)


def recognised(weights: ForeignWeights) -> dict[str, Any]:
    """What a model of another program says of settings: dotted key -> value."""
    known: dict[str, Any] = {"model.arch": weights.arch, "model.pooling": weights.pooling or "avg"}
    if weights.input_size is not None:
        known["data.height"], known["data.width"] = weights.input_size
    return known


def calibration_of(card: ModelCard, path: Path) -> Calibration | None:
    """What the similarities of the model in ``path`` mean; None: not measured.

    Raises:
        CheckpointError: It is kept in another way, or its numbers are none.
    """
    if card.calibration is None:
        return None
    try:
        calibration = Calibration.from_dict(card.calibration)
        if np.isfinite([calibration.slope, calibration.intercept, calibration.expected_matches]).all():
            return calibration
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    raise CheckpointError(f"{path} has a calibration of another version of calr", "Calibrate it again")


def refuse_other_network(path: Path, card: ModelCard, told: Mapping[str, Any]) -> None:
    """Raise if ``told`` contradicts what the file of a model says of its network.

    Raises:
        CheckpointError: It is something else.
    """
    if differing := [
        f"{path} has {name} {getattr(card, name)}, not {told[name]}"
        for name in FROM_MODEL
        if told.get(name) is not None and str(told[name]) != str(getattr(card, name))
    ]:
        raise CheckpointError(differing, "Leave that out: the model knows it")


def content_digests(paths: Sequence[str], reporter: Reporter) -> list[str]:
    """Digest of each file's content, "" where it cannot be read."""

    def digest(path: str) -> str:
        try:
            return content_digest(Path(path).read_bytes())
        except OSError:
            return ""

    digests = []
    with (
        ThreadPoolExecutor(available_cores()) as pool,
        reporter.progress("looking for changes", len(paths), "images") as progress,
    ):
        for result in pool.map(digest, paths):
            digests.append(result)
            progress.advance()
    return digests
