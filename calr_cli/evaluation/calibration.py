"""Turns a similarity into the probability that two images show the same identity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from calr_cli.errors import DataError
from calr_cli.evaluation.ground_truth import GroundTruth
from calr_cli.types import UNKNOWN_PID, FloatArray, IntArray

EVEN_ODDS = 0.5
"""Prior for two images about which nothing is known."""

Source = Literal["identities", "clusters"]

_MOST_PAIRS = 200_000
_BINS = 10
_ROWS = 65_536
_FEWEST_PAIRS = 10


@dataclass(frozen=True)
class Reliability:
    """Predicted and observed shares of held-out pairs at even odds, in bins of equal width.

    Attributes:
        predicted: Mean probability of the pairs in each bin that is not empty.
        observed: Share of pairs of one identity in each of these bins.
        weight: Share of all pairs in each of these bins, where both kinds of pairs have the same total
            weight.
    """

    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    weight: tuple[float, ...]

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance between predicted and observed shares, 0..1."""
        differences = np.subtract(self.predicted, self.observed)
        return float(np.average(np.abs(differences), weights=self.weight))


@dataclass(frozen=True)
class Calibration:
    """The function that turns similarities of one model into probabilities.

    The log-likelihood ratio of "same" to "different" is ``slope * similarity + intercept`` (Platt scaling).
    The prior is not part of it; each call for a probability gives one.

    Attributes:
        slope: Slope of the log-likelihood ratio; positive.
        intercept: Intercept of the log-likelihood ratio.
        source: Origin of the labels of pairs: known identities, or clusters of the images.
        dataset: Name of the dataset of the images.
        same_pairs: Number of fitted pairs of one identity, seen by different cameras.
        different_pairs: Number of fitted pairs of two identities.
        expected_matches: Mean number of images of a query's identity in the gallery.
        reliability: Check on identities that the fit had not seen.
    """

    slope: float
    intercept: float
    source: Source
    dataset: str
    same_pairs: int
    different_pairs: int
    expected_matches: float
    reliability: Reliability

    @property
    def origin(self) -> str:
        """The origin of the calibration, in words."""
        if self.source == "identities":
            return f"from identities of {self.dataset}"
        return f"label-free, from clusters of {self.dataset} (surer of itself than it should be)"

    def probability(self, similarity: npt.ArrayLike, prior: float = EVEN_ODDS) -> npt.NDArray[np.float64]:
        """Probability of "same" at ``similarity``, if the share ``prior`` of all pairs is the same."""
        logits = self.slope * np.asarray(similarity, np.float64) + self.intercept + _logit(prior)
        return np.asarray(_sigmoid(logits))

    def similarity_at(self, probability: float, prior: float = EVEN_ODDS) -> float:
        """The similarity at which "same" has this probability."""
        return (_logit(probability) - _logit(prior) - self.intercept) / self.slope

    def prior_of_search(self, gallery: int) -> float:
        """Share of matches among ``gallery`` images, if a query has as many matches as in calibration.

        It is at most one half, the prior of a single image.
        """
        return min(EVEN_ODDS, self.expected_matches / gallery)

    def to_dict(self) -> dict[str, Any]:
        """The calibration as a model file stores it."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Calibration:
        """The calibration from what `to_dict` returned.

        Raises:
            TypeError: ``values`` is something else.
        """
        columns = {name: tuple(column) for name, column in values["reliability"].items()}
        return Calibration(**{**values, "reliability": Reliability(**columns)})


def fit_calibration(
    q_features: FloatArray,
    g_features: FloatArray,
    q_pids: IntArray,
    g_pids: IntArray,
    q_camids: IntArray,
    g_camids: IntArray,
    *,
    source: Source,
    dataset: str,
) -> Calibration:
    """Fit on pairs of a query and a gallery image, and check on identities that were not fitted on.

    The pairs are the pairs of evaluation: it leaves out images of one identity AND camera, and images without
    an identity. Up to 200,000 pairs of each kind are drawn, and each kind has half of the weight; so the fit
    gives likelihood ratios, whatever the dataset's share of matches. For the check, the identities are
    divided into two halves, and each half is predicted by a fit on the other half.

    Source: Platt, "Probabilistic outputs for support vector machines", 1999, with his targets for few
    pairs; likelihood ratios as in Bruemmer and du Preez, "Application-independent evaluation of speaker
    detection", 2006.

    Args:
        q_features: (Q, D) unit rows.
        g_features: (G, D) unit rows.
        q_pids: (Q,) identities of the queries, ``UNKNOWN_PID`` where not known.
        g_pids: (G,) identities of the gallery.
        q_camids: (Q,) cameras of the queries.
        g_camids: (G,) cameras of the gallery.
        source: Origin of the identities, known or clusters.
        dataset: Name of the dataset of the images, for the record.

    Raises:
        DataError: Too few pairs of either kind, or similarities that say nothing of identities.
    """
    rng = np.random.default_rng(0)
    truth = GroundTruth((len(q_pids), len(g_pids)), q_pids, g_pids, q_camids, g_camids)
    same, expected_matches = _same_pairs(truth, rng)
    different = _different_pairs(q_pids, g_pids, rng)
    pairs = np.concatenate([same, different])
    is_same = np.arange(len(pairs)) < len(same)
    similarities = _similarities(q_features, g_features, pairs)
    halves = _halves(q_pids[pairs[:, 0]], g_pids[pairs[:, 1]], rng)
    fewest = min(np.count_nonzero(is_same[half] == kind) for half in halves for kind in (True, False))
    if fewest < _FEWEST_PAIRS:
        raise DataError(
            f"{dataset} has {len(same)} pairs of one identity seen by two cameras and {len(different)} of "
            f"two identities: each half of the identities needs {_FEWEST_PAIRS} of both kinds",
            "Calibrate on a dataset with more images",
        )
    slope, intercept = _fit(similarities, is_same)
    if not slope > 0:
        raise DataError(
            f"on {dataset}, images of one identity are no more similar than others: nothing to calibrate",
            "Train the model for longer, or check that the dataset is the right one",
        )
    reliability = _reliability(similarities, is_same, halves)
    counts = (len(same), len(different))
    return Calibration(slope, intercept, source, dataset, *counts, expected_matches, reliability)


def in_percent(probability: float | None) -> str:
    """A probability as text, never a certainty; "-" if there is none.

    >>> in_percent(0.5), in_percent(0.9999)
    ('50.0 %', '>99.9 %')
    """
    if probability is None:
        return "-"
    bounded = min(max(probability, 0.001), 0.999)
    sign = ">" if probability > bounded else "<" if probability < bounded else ""
    return f"{sign}{100 * bounded:.1f} %"


def _same_pairs(truth: GroundTruth, rng: np.random.Generator) -> tuple[IntArray, float]:
    """Positions of query and match, (P, 2), and the mean number of matches of a query that has any."""
    own = truth.own_images(slice(0, truth.shape[0]))
    queries, places = np.nonzero(np.arange(own.matches.shape[1]) < own.counts[:, None])
    drawn = rng.permutation(len(queries))[:_MOST_PAIRS]
    pairs = np.stack([queries[drawn], own.matches[queries[drawn], places[drawn]]], axis=1)
    return pairs, float(own.counts.sum() / max(np.count_nonzero(own.counts), 1))


def _different_pairs(q_pids: IntArray, g_pids: IntArray, rng: np.random.Generator) -> IntArray:
    """Drawn positions of a query and an image of another identity, (P, 2)."""
    queries, gallery = np.flatnonzero(q_pids != UNKNOWN_PID), np.flatnonzero(g_pids != UNKNOWN_PID)
    count = min(_MOST_PAIRS, len(queries) * len(gallery))
    if not count:
        return np.empty((0, 2), np.int64)
    pairs = np.stack([rng.choice(queries, count), rng.choice(gallery, count)], axis=1)
    return np.asarray(pairs[q_pids[pairs[:, 0]] != g_pids[pairs[:, 1]]])


def _halves(q_pids: IntArray, g_pids: IntArray, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """The pairs with both identities in the first half of all identities, and those in the second half."""
    pids, places = np.unique(np.concatenate([q_pids, g_pids]), return_inverse=True)
    half = rng.permutation(np.arange(len(pids)) % 2)[places].reshape(2, -1)
    return np.flatnonzero((half == 0).all(axis=0)), np.flatnonzero((half == 1).all(axis=0))


def _similarities(q_features: FloatArray, g_features: FloatArray, pairs: IntArray) -> FloatArray:
    parts = [
        np.einsum("nd,nd->n", q_features[block[:, 0]], g_features[block[:, 1]])
        for block in np.split(pairs, range(_ROWS, len(pairs), _ROWS))
    ]
    return np.concatenate(parts)


def _weights(is_same: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Weights of the pairs; each kind has half of the total."""
    same = int(is_same.sum())
    return np.where(is_same, 0.5 / max(same, 1), 0.5 / max(len(is_same) - same, 1))


def _fit(similarities: FloatArray, is_same: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and intercept of the log-likelihood ratio."""
    same = int(is_same.sum())
    # Platt's targets: as if one more pair of each kind had been seen. Without them, few pairs that are
    # separated without error would have an infinite slope.
    target = np.where(is_same, (same + 1) / (same + 2), 1 / (len(is_same) - same + 2))
    weights, rows = _weights(is_same), similarities.astype(np.float64)

    def loss_and_gradient(line: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        logits = line[0] * rows + line[1]
        slant = weights * (_sigmoid(logits) - target)
        loss = weights @ (np.logaddexp(0, logits) - target * logits)
        return float(loss), np.array([slant @ rows, slant.sum()])

    slope, intercept = minimize(loss_and_gradient, np.zeros(2), jac=True, options={"gtol": 1e-7}).x
    return float(slope), float(intercept)


def _reliability(
    similarities: FloatArray, is_same: npt.NDArray[np.bool_], halves: tuple[IntArray, IntArray]
) -> Reliability:
    """Reliability of predictions for each half of the identities by a fit on the other half."""
    predicted, observed = [], []
    for fitted, held_out in (halves, halves[::-1]):
        slope, intercept = _fit(similarities[fitted], is_same[fitted])
        predicted.append(_sigmoid(slope * similarities[held_out] + intercept))
        observed.append(is_same[held_out])
    probability, truth = np.concatenate(predicted), np.concatenate(observed)
    weights = _weights(truth)
    place = np.minimum((probability * _BINS).astype(int), _BINS - 1)
    total = np.bincount(place, weights, minlength=_BINS)
    filled = total > 0
    means = (np.bincount(place, weights * v, minlength=_BINS)[filled] for v in (probability, truth))
    columns = (*(mean / total[filled] for mean in means), total[filled])
    return Reliability(*(tuple(float(value) for value in column) for column in columns))


def _sigmoid(logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64))))


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))
