"""Estimated quality: right in-domain, corrected by a few labels, careful beyond the reference, silent when unsure."""

from __future__ import annotations

import numpy as np
import pytest

from service.core.drift import Quality
from service.monitor.estimate import estimate_quality
from service.monitor.features import Features


def features(seed: int, n: int, *, doubtful: float = 0.1, right: float = 0.4, labelled: float = 1.0) -> Features:
    """Confident replies are right 98 times in 100, doubtful ones as often as `right` says."""
    rng = np.random.default_rng(seed)
    unsure = rng.random(n) < doubtful
    confidence = np.where(unsure, rng.uniform(0.3, 0.7, n), rng.uniform(0.9, 1.0, n))
    scores = (rng.random(n) < np.where(unsure, right, 0.98)).astype(float)
    scores[rng.random(n) >= labelled] = np.nan
    return Features(("",) * n, ("",) * n, {"confidence": confidence}, scores)


def estimated(reference: Features, current: Features, *, beyond: bool = False) -> Quality:
    found = estimate_quality(reference, current, least=20, beyond=beyond)
    assert found is not None
    return found


@pytest.mark.parametrize("doubtful", [0.05, 0.1, 0.5])
def test_confidence_tells_the_quality_where_it_means_what_it_meant(doubtful: float) -> None:
    found = estimated(features(1, 2000), features(2, 2000, doubtful=doubtful, labelled=0.0))
    assert found.current == pytest.approx(doubtful * 0.4 + (1 - doubtful) * 0.98, abs=0.03)


def test_a_loss_beyond_the_reference_counts_twice_and_no_loss_not_at_all() -> None:
    reference, worse = features(1, 2000), features(2, 2000, doubtful=0.5, labelled=0.0)
    plain, careful = estimated(reference, worse), estimated(reference, worse, beyond=True)
    assert careful.drop == pytest.approx(2 * plain.drop)
    better = features(3, 2000, doubtful=0.0, labelled=0.0)
    assert estimated(reference, better, beyond=True) == estimated(reference, better)


def test_a_few_labels_correct_a_calibration_that_has_moved() -> None:
    reference = features(1, 500)
    moved = features(2, 500, doubtful=0.5, right=0.0, labelled=0.3)
    truth = 0.5 * 0.98
    assert estimated(reference, moved).current == pytest.approx(truth, abs=0.09)
    unlabelled = features(2, 500, doubtful=0.5, right=0.0, labelled=0.0)
    assert estimated(reference, unlabelled).current > truth + 0.1


def test_labels_that_leave_it_open_leave_it_unsaid() -> None:
    few = features(2, 200, doubtful=1.0, right=0.5)
    few.scores[12:] = np.nan
    assert estimate_quality(features(1, 500), few, least=20) is None


def test_too_little_confidence_is_no_estimate() -> None:
    reference, current = features(1, 500), features(2, 100)
    silent = np.full(100, np.nan)
    assert (
        estimate_quality(reference, Features(("",) * 100, ("",) * 100, {"confidence": silent}, silent), least=20)
        is None
    )
    same = Features(("",) * 500, ("",) * 500, {"confidence": np.ones(500)}, reference.scores)
    assert estimate_quality(same, current, least=20) is None
