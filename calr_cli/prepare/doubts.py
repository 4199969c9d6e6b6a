"""What in the splits of a dataset makes the figures of an evaluation doubtful."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from calr_cli.data.manifest import Record
from calr_cli.data.tables import first_names
from calr_cli.types import UNKNOWN_PID


def doubts(title: str, records: Sequence[Record]) -> list[str]:
    """One line each: files that are in two splits, and queries that have nothing to find."""
    lines = []
    if parts := list(_in_two_splits(records)):
        lines.append(
            f"{title}: the same file is in two splits, so the figures of an evaluation mean little: "
            f"{'; '.join(parts)}"
        )
    queries = [record for record in records if record[0] == "query"]
    if unmatched := _without_match(queries, records):
        lines.append(
            f"{title}: {len(unmatched):,} of {len(queries):,} queries will not count, since no gallery image "
            f"is of their identity and another camera: {first_names(unmatched)}"
        )
    return lines


def _in_two_splits(records: Sequence[Record]) -> Iterable[str]:
    """A query's file in the gallery is no harm as of its own identity and camera: there it is left out."""
    train = {digest for split, *_, digest in records if split == "train"}
    gallery: dict[str, set[tuple[int, int]]] = {}
    for split, _, pid, camid, digest in records:
        if split == "gallery":
            gallery.setdefault(digest, set()).add((pid, camid))
    for split, other in (("query", "gallery"), ("query", "train"), ("gallery", "train")):
        own = [record for record in records if record[0] == split]
        if other == "train":
            same = [path for _, path, _, _, digest in own if digest in train]
        else:
            same = [path for _, path, pid, camid, d in own if gallery.get(d, set()) - {(pid, camid)}]
        if same:
            yield f"{len(same):,} of {len(own):,} {split} images in {other} ({first_names(same)})"


def _without_match(queries: Sequence[Record], records: Sequence[Record]) -> list[str]:
    cameras: dict[int, set[int]] = {}
    for split, _, pid, camid, _ in records:
        if split == "gallery":
            cameras.setdefault(pid, set()).add(camid)
    return [
        path
        for _, path, pid, camid, _ in queries
        if pid != UNKNOWN_PID and not cameras.get(pid, set()) - {camid}
    ]
