"""Features of whatever images, by a trained model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from calr_cli.allocation import require_memory
from calr_cli.config.schema import Settings
from calr_cli.data.feature_files import Features
from calr_cli.data.inspection import content_digest
from calr_cli.data.readable import ReadableImages
from calr_cli.errors import DataError
from calr_cli.evaluation.calibration import Calibration
from calr_cli.events import Reporter
from calr_cli.models.encoder import Encoder
from calr_cli.pipelines.build import build_extractor
from calr_cli.pipelines.estimates import memory_limit

SHOWN = 20
"""Images that cannot be read that are named before the rest is only counted."""


@dataclass(frozen=True)
class Embedder:
    """A model, ready to turn images into features.

    Attributes:
        encoder: On its device, with what it computes in.
        settings: Of input size, batches and memory.
        calibration: What its similarities mean; None where that was not measured.
    """

    encoder: Encoder
    settings: Settings
    calibration: Calibration | None

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

    def embed(self, paths: Sequence[str], title: str, reporter: Reporter) -> tuple[Features, list[str]]:
        """Features of the images that can be read, in their order, and a line for each of the others.

        The first of these lines are warned of.

        Raises:
            DataError: No image can be read.
            MemoryLimitError: The features do not fit.
        """
        size = 8 * len(paths) * self.encoder.feature_dim
        limit = memory_limit(self.settings)
        require_memory(size, limit, f"features of {len(paths):,} images", "Give fewer images at a time")
        data = self.settings.data
        images = ReadableImages(paths, data.height, data.width, data.workers)
        rows = build_extractor(self.settings, reporter)(self.encoder, images, title=title)
        problems = [images.problems[position] for position in sorted(images.problems)]
        if len(problems) == len(paths):
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise DataError(f"{problems[0]}{more}", "There is no image that can be read")
        for problem in problems[:SHOWN]:
            reporter.warning(f"{problem}: left out")
        if len(problems) > SHOWN:
            reporter.warning(f"and {len(problems) - SHOWN} more images that cannot be read")
        kept = np.array([position not in images.problems for position in range(len(paths))])
        names = tuple(path for path, is_kept in zip(paths, kept, strict=True) if is_kept)
        return Features(names, rows[kept], self.key), problems


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
