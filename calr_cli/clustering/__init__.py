"""Pseudo labels: how they are made (clusters, pivots, refinement) and how good they are."""

from calr_cli.clustering.agglomerative import agglomerative_labels
from calr_cli.clustering.infomap import infomap_labels
from calr_cli.clustering.pivots import neighbourhood_scores, select_pivots
from calr_cli.clustering.quality import label_quality
from calr_cli.clustering.refinement import refine_by_camera
from calr_cli.clustering.weights import cluster_weights

__all__ = [
    "agglomerative_labels",
    "cluster_weights",
    "infomap_labels",
    "label_quality",
    "neighbourhood_scores",
    "refine_by_camera",
    "select_pivots",
]
