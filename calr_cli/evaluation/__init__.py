"""Retrieval metrics, and the probability that two images show the same identity."""

from calr_cli.evaluation.ranking import ranking_metrics
from calr_cli.evaluation.retrieval import retrieval_metrics

__all__ = ["ranking_metrics", "retrieval_metrics"]
