"""A dataset without splits, divided by identity into train, query and gallery."""

from __future__ import annotations

from collections import Counter

import numpy as np

from calr_cli.data.manifest import Record
from calr_cli.errors import DataError
from calr_cli.types import UNKNOWN_PID


def split_identities(records: list[Record], share: float, seed: int) -> list[Record]:
    """Put a share of the identities into training, the others into query and gallery.

    Of each test identity that two or more cameras saw, the first image of each camera, in the order
    of content digests, is a query; all else is gallery. Where that would leave a query without a match,
    since fewer than two cameras have a second image, the camera with the most images has no query.
    Images of unknown identity train.

    Args:
        records: Readable images, their split ignored.
        share: Share of identities that train, in 0..1; at least one identity is on either side.
        seed: Seed of the draw.

    Raises:
        DataError: Fewer than two identities are known, or no test identity was seen by two cameras.
    """
    pids = sorted({record[2] for record in records} - {UNKNOWN_PID})
    if len(pids) < 2:
        raise DataError(
            f"A split needs at least two known identities, there are {len(pids)}",
            "Add the group pid to the pattern, or the column pid to the table; else leave --split out",
        )
    drawn = np.random.default_rng(seed).permutation(pids)
    test = set(drawn[min(max(round(share * len(pids)), 1), len(pids) - 1) :].tolist())
    asking = _asking_cameras([(pid, camid) for _, _, pid, camid, _ in records if pid in test])
    if not asking:
        raise DataError(*_no_query(records, len(test)))
    result: list[Record] = []
    for _, path, pid, camid, digest in sorted(records, key=lambda record: (record[4], record[1])):
        split = "gallery" if pid in test else "train"
        if (pid, camid) in asking:
            asking.remove((pid, camid))
            split = "query"
        result.append((split, path, pid, camid, digest))
    return result


def _no_query(records: list[Record], drawn: int) -> tuple[str, str]:
    """Why no test identity was seen by two cameras, and what helps."""
    if len({camid for *_, camid, _ in records}) == 1:
        return (
            "All images are of one camera, and a query needs a match from another: there would be no query",
            "Add the group camid to the pattern, or the column camid to the table; else leave --split out",
        )
    if not _asking_cameras([(pid, camid) for _, _, pid, camid, _ in records if pid != UNKNOWN_PID]):
        return "No identity was seen by two cameras: there would be no query", "Leave --split out"
    return (
        f"Of the {drawn} identities drawn for the test none was seen by two cameras: there would be no query",
        "Draw others with another --seed, or leave --split out",
    )


def _asking_cameras(images: list[tuple[int, int]]) -> set[tuple[int, int]]:
    """Identity and camera of each query, of the identity and camera of each test image."""
    counts = Counter(images)
    cameras: dict[int, list[int]] = {}
    for pid, camid in sorted(counts):
        cameras.setdefault(pid, []).append(camid)
    asking = {(pid, camid) for pid, camid in counts if len(cameras[pid]) > 1}
    for pid, camids in cameras.items():
        if sum(counts[pid, camid] > 1 for camid in camids) < 2:
            asking.discard((pid, max(camids, key=lambda camid: counts[pid, camid])))
    return asking
