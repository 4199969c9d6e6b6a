"""Nearest neighbours of features, and distances between features."""

from calr_cli.distances.jaccard import jaccard_distance, jaccard_similarity
from calr_cli.distances.knn import knn
from calr_cli.distances.rerank import rerank_distance

__all__ = ["jaccard_distance", "jaccard_similarity", "knn", "rerank_distance"]
