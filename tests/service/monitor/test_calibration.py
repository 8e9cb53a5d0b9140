"""Thresholds: the resampled statistic is Evidently's own, and what it promises to hold back it holds back."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from evidently.legacy.calculations.stattests import jensenshannon_stat_test, wasserstein_stat_test
from evidently.legacy.core import ColumnType

from service.monitor.calibration import Null, categorical_null, numeric_null
from service.monitor.neighbours import Neighbours

SAMPLES = {
    "lengths": lambda rng, n: rng.poisson(8, n).astype(float),
    "skewed": lambda rng, n: rng.lognormal(size=n),
    "rare": lambda rng, n: (rng.random(n) < 0.03).astype(float),
    "confident": lambda rng, n: np.exp(-rng.exponential(0.05, n)),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_numeric_null_is_that_of_evidentlys_statistic(name: str) -> None:
    rng = np.random.default_rng(0)
    values = SAMPLES[name](rng, 300)
    null = numeric_null(values, 300, 100, np.random.default_rng(1))
    drawn = []
    for _ in range(1500):
        reference, current = rng.choice(values, 300), rng.choice(values, 100)
        drawn.append(
            wasserstein_stat_test(pd.Series(reference), pd.Series(current), ColumnType.Numerical, 0.1).drift_score
        )
    assert float(np.mean(np.asarray(drawn) > null.start)) == pytest.approx(0.05, abs=0.02)


def test_the_categorical_null_is_that_of_evidentlys_statistic() -> None:
    rng = np.random.default_rng(0)
    counts = np.array([60, 40, 30, 12, 8])
    null = categorical_null(counts, 100, np.random.default_rng(1))
    drawn = []
    for _ in range(1500):
        reference, current = (rng.choice(list("abcde"), n, p=counts / 150) for n in (150, 100))
        tested = jensenshannon_stat_test(pd.Series(reference), pd.Series(current), ColumnType.Categorical, 0.1)
        drawn.append(tested.drift_score)
    assert float(np.mean(np.asarray(drawn) > null.start)) == pytest.approx(0.05, abs=0.02)


def test_a_rarer_false_alarm_and_fewer_requests_ask_for_more() -> None:
    null = Null(start=0.2, excess=0.03, reference_n=300, current_n=100)
    assert null.threshold(0.05, 100) == pytest.approx(0.2)
    assert null.threshold(0.5, 100) == pytest.approx(0.2)
    assert null.threshold(0.001, 100) > null.threshold(0.01, 100)
    assert null.threshold(0.01, 25) > null.threshold(0.01, 100)
    assert null.threshold(0.01, 0) > 0


def test_calibration_is_repeatable() -> None:
    values = np.random.default_rng(0).normal(size=100)
    assert numeric_null(values, 100, 50, np.random.default_rng(3)) == numeric_null(
        values, 100, 50, np.random.default_rng(3)
    )


def test_a_clean_window_is_as_far_from_the_reference_as_the_reference_from_itself() -> None:
    rng = np.random.default_rng(0)
    apart = []
    for _ in range(200):
        topics = rng.normal(size=(12, 16))
        drawn = (topics[rng.integers(0, 12, 700)] + 0.7 * rng.normal(size=(700, 16)) + 3.0).astype(np.float32)
        space = Neighbours(drawn[:200])
        within = space.within()
        apart.append((space.distance(drawn[200:]).mean() - within.mean()) / within.std())
    # Without the corrections it would be 0.06 and more.
    assert abs(np.mean(apart)) < 3 * np.std(apart) / np.sqrt(len(apart))


def test_distances_are_centred_cosines_to_the_three_nearest_others() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(40, 8)).astype(np.float32) + 5.0
    space = Neighbours(reference)
    within, again = space.within(), space.distance(reference)
    centred = reference - reference.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    likeness = unit @ unit.T
    np.fill_diagonal(likeness, -np.inf)
    expected = 1 - np.sort(likeness, 1)[:, -3:].mean(1)
    np.testing.assert_allclose(again, expected, atol=1e-5)  # the one request left out is here the request itself
    np.testing.assert_allclose(within, expected, atol=0.04)
    broken = reference.copy()
    broken[3, 2] = np.nan
    assert np.isnan(space.distance(broken)).tolist() == [i == 3 for i in range(40)]
