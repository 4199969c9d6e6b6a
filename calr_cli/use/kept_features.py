"""Features of image files that are computed once: the next command takes them from where they are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np

from calr_cli.allocation import require_memory
from calr_cli.events import Progress, Reporter, SilentReporter
from calr_cli.method.estimates import memory_limit
from calr_cli.types import FloatArray
from calr_cli.use.embedding import Embedder, content_digests, nothing_readable, warn_of
from calr_cli.use.feature_store import PART_ROWS, FeatureStore


@dataclass(frozen=True)
class KeptFeatures:
    """The features of the images that can be read, in the order in which they were given.

    Attributes:
        paths: N of them.
        digests: Of the content of each.
        failed: A line for each image that cannot be read.
        store: Where the features are.
    """

    paths: tuple[str, ...]
    digests: list[str]
    failed: list[str]
    store: FeatureStore = field(repr=False)

    def blocks(self, rows: int) -> Iterator[FloatArray]:
        """The features, at most ``rows`` of them at a time, (B, D) float32."""
        return self.store.blocks(self.digests, rows)

    def rows(self) -> FloatArray:
        """All features, (N, D) float32 unit rows."""
        return np.concatenate(list(self.blocks(PART_ROWS)))


def kept_features(
    embedder: Embedder, paths: Sequence[str], reporter: Reporter, title: str = "gallery"
) -> KeptFeatures:
    """Features of image files; those that are kept already are not computed again.

    They are kept under the digests of their images: names, order and the other images may change.

    Raises:
        DataError: No image can be read.
        CheckpointError: The model gives something else than numbers.
        MemoryLimitError: Features that cannot be written do not fit into memory.
    """
    digests = content_digests(paths, reporter)
    store = FeatureStore(f"{embedder.key}-{embedder.precision}", embedder.encoder.feature_dim, reporter)
    there = store.use(digests)
    todo = [place for place, digest in enumerate(digests) if digest not in there]
    reporter.note(
        f"{title}: {len(paths):,} images, features of {len(paths) - len(todo):,} are kept in {store.folder}"
    )
    problems: dict[int, str] = {}
    with reporter.progress(title, len(todo), "images") if todo else nullcontext() as progress:
        for first in range(0, len(todo), PART_ROWS):
            part = todo[first : first + PART_ROWS]
            names, contents = [paths[place] for place in part], [digests[place] for place in part]
            told = _PartOf(progress)
            rows, found = embedder.rows_of(names, title, told, digests=contents)
            problems |= {part[position]: line for position, line in found.items()}
            good = [position for position in range(len(part)) if position not in found]
            if good:
                store.keep([contents[position] for position in good], rows[good])
                limit = memory_limit(embedder.settings)
                require_memory(
                    store.bytes_in_memory, limit, "features that cannot be kept", "Free disk space"
                )
    if len(problems) == len(paths):
        raise nothing_readable(list(problems.values()))
    lines = [problems[place] for place in sorted(problems)]
    warn_of(lines, reporter)
    store.tidy()
    kept = [place for place in range(len(paths)) if place not in problems]
    return KeptFeatures(tuple(paths[n] for n in kept), [digests[n] for n in kept], lines, store)


class _PartOf(SilentReporter):
    """Shows the progress of a part of a step as progress of the step."""

    def __init__(self, whole: Progress | None) -> None:
        self.whole = whole

    def progress(
        self, title: str, total: int, unit: str = "", done: int = 0
    ) -> AbstractContextManager[Progress]:
        """See `Reporter.progress`."""
        assert self.whole is not None
        return nullcontext(self.whole)
