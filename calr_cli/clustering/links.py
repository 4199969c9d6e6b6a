"""Which of an image's nearest neighbours it is linked to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from calr_cli.types import Neighbours


def links(neighbours: Neighbours, min_similarity: float) -> npt.NDArray[np.bool_]:
    """(N, k) bool: the neighbours that are similar enough for a link, without the image itself."""
    itself = np.arange(len(neighbours.indices))[:, None]
    linked: npt.NDArray[np.bool_] = (neighbours.indices != itself) & (
        neighbours.similarities >= min_similarity
    )
    return linked
