"""The map of features, coloured by camera and by cluster."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from calr_cli.report.figures import Group, scatter
from calr_cli.report.projection import FeatureMap
from calr_cli.types import OUTLIER, IntArray

_CLUSTERS = 12


def map_by_camera(name: str, found: FeatureMap, camids: IntArray) -> Markup:
    """Points of one camera have one colour and shape."""
    of_image = camids[found.images]
    groups = [Group(f"camera {c}", found.points[of_image == c]) for c in np.unique(of_image)]
    alt = f"Map of the features of {len(found.images)} training images by camera, {len(groups)} cameras"
    return scatter(name, alt, groups)


def map_by_cluster(name: str, found: FeatureMap, labels: IntArray) -> Markup:
    """Points of the largest clusters have a colour, a shape and their number; the rest are dots."""
    of_image = labels[found.images]
    clusters, sizes = np.unique(of_image[of_image != OUTLIER], return_counts=True)
    largest = np.sort(clusters[np.argsort(-sizes, kind="stable")[:_CLUSTERS]])
    groups = [Group(f"cluster {c}", found.points[of_image == c], str(c)) for c in largest]
    alt = (
        f"Map of the features of {len(found.images)} training images by refined cluster: the {len(groups)} "
        "largest have a colour, a shape and their number"
    )
    return scatter(name, alt, groups, found.points[~np.isin(of_image, largest)])
