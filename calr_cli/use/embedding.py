"""Features of whatever images, by a trained model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calr_cli.allocation import require_memory
from calr_cli.config.layers import Given, Layer, flattened
from calr_cli.config.loading import validated
from calr_cli.config.schema import Settings
from calr_cli.data.images import content_digest
from calr_cli.distributed.devices import choose_devices
from calr_cli.errors import CheckpointError, ConfigError, DataError
from calr_cli.evaluation.calibration import Calibration
from calr_cli.events import Reporter, SilentReporter
from calr_cli.method.build import build_extractor, ready
from calr_cli.method.estimates import memory_limit
from calr_cli.models.encoder import Encoder
from calr_cli.models.folding import fold_batch_norms
from calr_cli.models.foreign import ForeignWeights, build_foreign, describe
from calr_cli.training.checkpoint import ModelCard, open_model
from calr_cli.use.feature_files import Features
from calr_cli.use.readable import ReadableImages

FROM_MODEL = {
    "arch": "model.arch",
    "pooling": "model.pooling",
    "height": "data.height",
    "width": "data.width",
}
"""What a model file of calr says by itself: field of its card -> setting."""

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

    @property
    def key(self) -> str:
        """The same for models that give the same features, but for rounding, hexadecimal."""
        data = self.settings.data
        digest = blake2b(digest_size=16)
        digest.update(f"{self.encoder} {data.height} {data.width}".encode())
        for name, tensor in self.encoder.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def embed(
        self, paths: Sequence[str | Path], title: str = "images", reporter: Reporter | None = None
    ) -> tuple[Features, list[str]]:
        """Features of the images that can be read, in their order, and a line for each of the others.

        Args:
            paths: Image files.
            title: Of the progress shown.
            reporter: Shown a progress and warned of the first of these lines; None: nothing is said.

        Raises:
            DataError: No image can be read.
            MemoryLimitError: The features do not fit.
        """
        files, reporter = [str(path) for path in paths], reporter or SilentReporter()
        size = 8 * len(files) * self.encoder.feature_dim
        limit = memory_limit(self.settings)
        require_memory(size, limit, f"features of {len(files):,} images", "Give fewer images at a time")
        data = self.settings.data
        images = ReadableImages(files, data.height, data.width, data.workers)
        rows = build_extractor(self.settings, reporter)(self._folded, images, title=title)
        problems = [images.problems[position] for position in sorted(images.problems)]
        if len(problems) == len(files):
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise DataError(f"{problems[0]}{more}", "There is no image that can be read")
        for problem in problems[:SHOWN]:
            reporter.warning(f"{problem}: left out")
        if len(problems) > SHOWN:
            reporter.warning(f"and {len(problems) - SHOWN} more images that cannot be read")
        kept = np.array([position not in images.problems for position in range(len(files))])
        names = tuple(path for path, is_kept in zip(files, kept, strict=True) if is_kept)
        return Features(names, rows[kept], self.key), problems


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
        ConfigError: A wrong setting.
    """
    reporter, problems = SilentReporter(), list[str]()
    given = flattened(settings or {}, "", "settings", problems)
    if problems:
        raise ConfigError(problems)
    where = choose_devices(None, None, None, reporter)[0] if device is None else torch.device(device)
    return open_embedder(Path(path), where, given, reporter)


def open_embedder(path: Path, device: torch.device, given: Layer, reporter: Reporter) -> Embedder:
    """See `load_embedder`; ``given`` says of each setting where it was given, for errors.

    Raises:
        CheckpointError: No such file, no network that calr recognises, or a setting that contradicts it.
        ConfigError: A wrong setting.
    """
    opened = open_model(path)
    if isinstance(opened, ForeignWeights):
        known = {"model.arch": opened.arch, "model.pooling": opened.pooling or "avg"}
        settings = validated(
            {key: Given(value, str(path)) for key, value in known.items()} | given, []
        ).settings
        model, data = settings.model, settings.data
        described = describe(opened, model.arch, model.pooling)
        size = f"{data.height} x {data.width}"
        reporter.note(f"{described}; input {size} (--height, --width), which the file does not say")
        encoder = build_foreign(opened, model.arch, model.pooling, CheckpointError)
        return Embedder(ready(settings, encoder, device), settings, None)
    encoder, card = opened
    refuse_other_network(path, card, {n: given[key].value for n, key in FROM_MODEL.items() if key in given})
    of_card = {key: Given(getattr(card, name), str(path)) for name, key in FROM_MODEL.items()}
    settings = validated(given | of_card, []).settings
    calibration = None
    if card.calibration is not None:
        try:
            calibration = Calibration.from_dict(card.calibration)
        except (KeyError, TypeError):
            raise CheckpointError(
                f"{path} has a calibration of another version of calr", "Calibrate it again"
            ) from None
    return Embedder(ready(settings, encoder, device), settings, calibration, card.dataset)


def refuse_other_network(path: Path, card: ModelCard, told: Mapping[str, Any]) -> None:
    """Nothing, if what is told of a model is what its file says; ``told`` may be of other things, too.

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
        ThreadPoolExecutor(os.cpu_count()) as pool,
        reporter.progress("looking for changes", len(paths), "images") as progress,
    ):
        for result in pool.map(digest, paths):
            digests.append(result)
            progress.advance()
    return digests
