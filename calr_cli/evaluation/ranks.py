"""Finds the ranks of a query's matches without sorting the gallery."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from calr_cli.types import IntArray

# A pass over the distances for each match costs 0.15 ns per distance, a binary search of every distance
# among the matches 30 to 100 ns: the ranks of many matches are found by search.
_MOST_PASSES = 384
# The rows that are gone over for all their matches before the next: what a core keeps in its caches.
_GROUP_BYTES = 2 * 2**20


@dataclass(frozen=True)
class MatchRanks:
    """Ranks of the matches of R queries, at most M matches each, nearest first.

    Attributes:
        retrieved: (R, M) number of gallery images that are at most as far away as the match.
        relevant: (R, M) number of matches that are at most as far away as the match.
        first_match: (R,) number of images ranked before the first match; equal distances by position.
    """

    retrieved: IntArray
    relevant: IntArray
    first_match: IntArray


def match_ranks(distances: Tensor, columns: IntArray, counts: IntArray) -> MatchRanks:
    """Ranks of each row's matches among its distances.

    The function sorts only the distances of the matches: the rank of a match is the number of images that are
    at most as far away. It works on the device of ``distances``, on the CPU with torch's number of threads.

    Args:
        distances: (R, G) distances, infinite for images that are left out.
        columns: (R, M) positions of the matches, ascending; any value beyond the row's count.
        counts: (R,) number of matches of each row, at least 1, descending.
    """
    device, gallery = distances.device, distances.shape[1]
    where = torch.from_numpy(columns).to(device)
    is_match = torch.from_numpy(np.arange(columns.shape[1]) < counts[:, None]).to(device)
    matches = distances.gather(1, where).masked_fill_(~is_match, torch.inf)
    nearest = matches.amin(dim=1, keepdim=True)
    position = where.masked_fill(matches != nearest, gallery).amin(dim=1, keepdim=True)
    matches = matches.sort(dim=1).values
    relevant = torch.searchsorted(matches, matches, right=True)
    retrieved = _count_at_most(distances, matches, counts)

    first_match = torch.lt(distances, nearest, out=torch.empty_like(distances)).sum(dim=1).long()
    tied = (retrieved[:, 0] - first_match > relevant[:, 0]).nonzero()[:, 0]
    if len(tied):
        before = torch.arange(gallery, device=device) < position[tied]
        first_match[tied] += ((distances[tied] == nearest[tied]) & before).sum(dim=1)
    return MatchRanks(*(ranks.cpu().numpy() for ranks in (retrieved, relevant, first_match)))


def _count_at_most(distances: Tensor, thresholds: Tensor, counts: IntArray) -> Tensor:
    """(R, M) number of distances of each row up to each of its M thresholds, which are ascending."""
    rows, most = thresholds.shape
    if most > _MOST_PASSES:
        below = torch.searchsorted(thresholds, distances)  # how many thresholds are below the distance
        below += torch.arange(0, rows * (most + 1), most + 1, device=below.device)[:, None]
        return below.view(-1).bincount(minlength=rows * (most + 1)).view(rows, -1).cumsum(dim=1)[:, :most]
    # Zeros and ones as floating point numbers: torch compares and sums them several times as fast as truth
    # values. Their sum is exact up to 2**24.
    counted = torch.zeros((most, rows), dtype=distances.dtype, device=distances.device)
    for group in _groups(distances):
        is_within = torch.empty_like(distances[group])
        for column in range(int(counts[group.start])):
            torch.le(distances[group], thresholds[group, column, None], out=is_within)
            torch.sum(is_within, dim=1, out=counted[column, group])
    return counted.T.long()


def _groups(distances: Tensor) -> Iterator[slice]:
    size = _GROUP_BYTES * torch.get_num_threads() // (distances.element_size() * distances.shape[1])
    rows = len(distances) if distances.is_cuda else max(1, size)
    return (slice(start, start + rows) for start in range(0, len(distances), rows))
