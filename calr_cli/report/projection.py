"""Features in two dimensions: PCA, then t-SNE, of a sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from calr_cli.errors import DataError
from calr_cli.types import FloatArray, IntArray

_LEAST = 10
_COMPONENTS = 50
_PERPLEXITY = 30.0


@dataclass(frozen=True)
class FeatureMap:
    """The places of some images on the map.

    Attributes:
        images: (M,) positions of the images.
        points: (M, 2) places.
    """

    images: IntArray
    points: FloatArray


def feature_map(features: FloatArray, most: int, rng: np.random.Generator) -> FeatureMap:
    """Two dimensions for at most ``most`` of the (N, D) features, drawn by ``rng``.

    Raises:
        DataError: There are too few features, or all are the same.
    """
    if len(features) < _LEAST:
        raise DataError(f"{len(features)} images are too few for a map")
    images = np.sort(rng.permutation(len(features))[:most])
    sample = features[images].astype(np.float64)
    if np.allclose(sample, sample[0]):
        raise DataError("the features of all images are the same: there is nothing to map")
    seed = int(rng.integers(2**31))
    components = min(_COMPONENTS, *sample.shape)
    reduced = PCA(components, svd_solver="randomized", random_state=seed).fit_transform(sample)
    perplexity = min(_PERPLEXITY, (len(sample) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    return FeatureMap(images, points.astype(np.float32))
