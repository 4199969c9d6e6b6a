"""Similarities to probabilities: against Bayes' rule, another implementation, and what is held out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from calr_cli.errors import DataError
from calr_cli.evaluation import calibration as module
from calr_cli.evaluation.calibration import Calibration, Reliability, fit_calibration

KNOWN = Calibration(
    slope=10.0,
    intercept=-4.0,
    source="identities",
    dataset="shop",
    same_pairs=100,
    different_pairs=1000,
    expected_matches=4.0,
    reliability=Reliability((0.1, 0.8), (0.2, 0.7), (0.25, 0.75)),
)


def made_up(ids: int, each: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit rows around a direction for each identity, their identities, and cameras that take turns."""
    rng = np.random.default_rng(seed)
    pids = np.repeat(np.arange(ids), each)
    rows = rng.normal(size=(ids, 16))[pids] + noise * rng.normal(size=(ids * each, 16))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), pids, np.arange(len(pids)) % each % 2


def fitted(rows: np.ndarray, pids: np.ndarray, camids: np.ndarray) -> Calibration:
    """Every image is query and gallery image."""
    return fit_calibration(rows, rows, pids, pids, camids, camids, source="identities", dataset="shop")


@given(st.floats(-1, 1), st.floats(0.001, 0.999))
def test_the_prior_enters_by_bayes_rule(similarity: float, prior: float) -> None:
    ratio = np.exp(10 * similarity - 4)
    expected = prior * ratio / (prior * ratio + 1 - prior)
    probability = KNOWN.probability(similarity, prior)
    assert probability == pytest.approx(expected, rel=1e-9)


@given(st.floats(0.01, 0.99), st.floats(0.001, 0.999))
def test_a_threshold_has_the_probability_asked_for(probability: float, prior: float) -> None:
    assert KNOWN.probability(KNOWN.similarity_at(probability, prior), prior) == pytest.approx(probability)


def test_the_prior_of_a_search_is_the_expected_share_of_matches() -> None:
    assert KNOWN.prior_of_search(400) == 0.01
    assert KNOWN.prior_of_search(5) == 0.5


def test_the_error_is_the_weighted_mean_of_the_differences() -> None:
    assert KNOWN.reliability.error == pytest.approx(0.1)


def test_a_model_file_keeps_it_as_plain_values() -> None:
    assert Calibration.from_dict(KNOWN.to_dict()) == KNOWN
    with pytest.raises(TypeError):
        Calibration.from_dict({**KNOWN.to_dict(), "temperature": 1})


def test_the_fit_is_balanced_logistic_regression() -> None:
    """Against scikit-learn on all pairs; of the different ones ours has a sample."""
    rows, pids, camids = made_up(40, 6, noise=1.0)
    ours = fitted(rows, pids, camids)
    first, second = np.nonzero(~((pids[:, None] == pids) & (camids[:, None] == camids)))
    is_same = pids[first] == pids[second]
    similarities = (rows[first] * rows[second]).sum(axis=1)[:, None]
    oracle = LogisticRegression(C=1e6, class_weight="balanced").fit(similarities, is_same)
    assert ours.same_pairs == is_same.sum() == 40 * 6 * 3
    assert ours.slope == pytest.approx(oracle.coef_[0, 0], rel=0.03)
    assert ours.intercept == pytest.approx(oracle.intercept_[0], abs=0.1)
    assert ours.expected_matches == 3


def test_what_is_predicted_is_observed() -> None:
    """The made-up similarities are nearly logistic, so a right check finds hardly an error."""
    reliability = fitted(*made_up(60, 6, noise=1.2)).reliability
    assert reliability.error < 0.05
    assert sum(reliability.weight) == pytest.approx(1)
    assert list(reliability.predicted) == sorted(reliability.predicted)


def test_the_check_is_on_identities_that_were_not_fitted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, pids, camids = made_up(20, 6, noise=0.5)
    seen: list[set[float]] = []
    fit = module._fit

    def noting(similarities: np.ndarray, is_same: np.ndarray) -> tuple[float, float]:
        seen.append(set(similarities.tolist()))
        return fit(similarities, is_same)

    monkeypatch.setattr(module, "_fit", noting)
    fitted(rows, pids, camids)
    whole, first, second = seen
    assert first | second < whole  # pairs of an identity from each half belong to neither
    assert not first & second


def test_few_pairs_without_an_error_do_not_promise_certainty() -> None:
    """Platt's targets: separated perfectly, the slope would else be infinite."""
    found = fitted(*made_up(6, 4, noise=0.01))
    assert found.probability(1.0) < 0.999
    assert found.slope < 1000


def test_images_without_an_identity_do_not_count() -> None:
    rows, pids, camids = made_up(20, 6, noise=1.0)
    whole = fitted(rows, pids, camids)
    junk = np.random.default_rng(1).normal(size=(500, 16)).astype(np.float32)
    more = (np.vstack([rows, junk]), np.append(pids, np.full(500, -1)), np.append(camids, np.zeros(500, int)))
    assert replace(fitted(*more), different_pairs=0).same_pairs == whole.same_pairs
    assert fitted(*more).slope == pytest.approx(whole.slope, rel=0.1)


def test_too_few_pairs() -> None:
    with pytest.raises(
        DataError, match=r"^shop has 8 pairs of one identity seen by two cameras and \d+ of two"
    ):
        fitted(*made_up(4, 2, noise=0.1))


def test_similarities_that_say_nothing() -> None:
    rows, pids, camids = made_up(20, 6, noise=0.1)
    turned = np.where((camids == 0)[:, None], rows, -rows)  # another camera makes it the opposite
    with pytest.raises(DataError, match="are no more similar than others: nothing to calibrate"):
        fitted(turned, pids, camids)
