"""Which gallery images a query should find, and which are left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from calr_cli.errors import DataError
from calr_cli.types import UNKNOWN_PID, IntArray


@dataclass(frozen=True)
class OwnImages:
    """The gallery images that have the identities of R queries.

    Attributes:
        counts: (R,) number of matches of each query, images of its identity from another camera.
        matches: (R, M) positions of the matches in the gallery, ascending; 0 beyond the query's count.
        left_out: (2, P) query and gallery position of each image of the query's identity AND camera.
    """

    counts: IntArray
    matches: IntArray
    left_out: IntArray


class GroundTruth:
    """Identities and cameras of Q queries and G gallery images, with the gallery in order of identity.

    In that order the images of one identity are next to each other, so that a query's images are found
    without a comparison with every other identity.

    Attributes:
        shape: (Q, G).
        junk: Positions of the gallery images without an identity.

    Raises:
        DataError: There is no query or no gallery image, or shapes do not fit.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        q_pids: npt.ArrayLike,
        g_pids: npt.ArrayLike,
        q_camids: npt.ArrayLike,
        g_camids: npt.ArrayLike,
    ) -> None:
        if 0 in shape:
            raise DataError(f"{shape[0]} queries and {shape[1]} gallery images: nothing to rank")
        self.shape = shape
        queries = _ids("q_pids", q_pids, shape[0], "queries")
        gallery = _ids("g_pids", g_pids, shape[1], "gallery images")
        self.q_camids = _ids("q_camids", q_camids, shape[0], "queries")
        self.g_camids = _ids("g_camids", g_camids, shape[1], "gallery images")
        self.junk = np.flatnonzero(gallery == UNKNOWN_PID)
        self.order = np.argsort(gallery, kind="stable")
        self.begin = np.searchsorted(gallery[self.order], queries, side="left")
        self.size = np.searchsorted(gallery[self.order], queries, side="right") - self.begin
        self.size[queries == UNKNOWN_PID] = 0

    def own_images(self, queries: slice) -> OwnImages:
        """The gallery images of the same identity as each of the ``queries``."""
        size, begin = self.size[queries], self.begin[queries]
        rows = np.repeat(np.arange(len(size)), size)
        columns = self.order[_places(size) + np.repeat(begin, size)]
        is_match = self.g_camids[columns] != self.q_camids[queries][rows]
        counts = np.bincount(rows[is_match], minlength=len(size))
        matches = np.zeros((len(size), counts.max()), np.int64)
        matches[rows[is_match], _places(counts)] = columns[is_match]
        return OwnImages(counts, matches, np.stack([rows[~is_match], columns[~is_match]]))


def _places(counts: IntArray) -> IntArray:
    """0, 1, 2, ... for each count, one after the other."""
    places: IntArray = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    return places


def _ids(name: str, values: npt.ArrayLike | torch.Tensor, length: int, of: str) -> npt.NDArray[np.generic]:
    array = values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    if array.shape != (length,):
        raise DataError(f"{name} has shape {array.shape}, but there are {length} {of}")
    return array
