"""How much two clusterings of the same images differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from sklearn.metrics import adjusted_rand_score


@dataclass(frozen=True)
class LabelAgreement:
    """Two labelings of the same images, compared.

    Attributes:
        ari: Adjusted Rand index: 1 for the same clusters, about 0 for independent clusters.
        num_moved: Images that would have to change their cluster to make both equal: the images outside
            of the best one-to-one pairing of clusters.
    """

    ari: float
    num_moved: int


def label_agreement(first_labels: npt.ArrayLike, second_labels: npt.ArrayLike) -> LabelAgreement:
    """Compare two clusterings of the same N images, whatever their clusters are called.

    Args:
        first_labels: (N,) labels; -1 is a cluster like any other.
        second_labels: (N,) labels.

    >>> label_agreement([0, 0, 0, 1, 1], [5, 5, 2, 2, 2]).num_moved
    1
    """
    first = np.unique(np.asarray(first_labels), return_inverse=True)[1]
    second = np.unique(np.asarray(second_labels), return_inverse=True)[1]
    shared = sparse.csr_array((np.ones(len(first)), (first, second)))  # images of each pair of clusters
    # A cluster may also stay without a partner: a column of its own, worth as much as sharing nothing.
    # All entries count one too many, since the solver takes an entry of 0 for no entry.
    shared.data += 1
    alone = sparse.eye_array(shared.shape[0])
    options = sparse.hstack([shared, alone], format="csr")
    pairs = min_weight_full_bipartite_matching(options, maximize=True)
    kept = int(options[pairs].sum()) - shared.shape[0]
    return LabelAgreement(ari=float(adjusted_rand_score(first, second)), num_moved=len(first) - kept)
