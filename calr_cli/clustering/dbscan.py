"""Global clustering of the ClusterContrast and SpCL family: DBSCAN on Jaccard distances."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from sklearn.cluster import DBSCAN
from sklearn.neighbors import sort_graph_by_row_values

from calr_cli.types import IntArray


def dbscan_labels(similarity: sparse.csr_array, eps: float, min_samples: int = 4) -> IntArray:
    """DBSCAN on the distances 1 - similarity; images without a cluster are outliers.

    Args:
        similarity: (N, N) symmetric CSR in 0..1 without the diagonal, with every pair within ``eps``; see
            `calr_cli.distances.jaccard_similarity`.
        eps: Largest distance of neighbours.
        min_samples: Number of images within ``eps``, the image itself included, that makes an image a core.

    Returns:
        (N,) labels 0..K-1, or ``OUTLIER``.
    """
    count = similarity.shape[0]
    if not count:
        return np.empty(0, np.int64)
    near = 1 - similarity.data <= eps
    itself = np.arange(count)  # scikit-learn wants an image among its own neighbours
    rows = np.concatenate([itself, np.repeat(itself, np.diff(similarity.indptr))[near]])
    columns = np.concatenate([itself, similarity.indices[near]])
    values = np.concatenate([np.zeros(count, np.float32), 1 - similarity.data[near]])
    distances = sparse.csr_matrix((values, (rows, columns)), shape=(count, count))
    graph = sort_graph_by_row_values(distances, copy=False, warn_when_not_sorted=False)
    labels: IntArray = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit(graph).labels_
    return labels.astype(np.int64)
