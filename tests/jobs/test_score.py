"""Numbers of an evaluation, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain_jobs.score import (
    Answer,
    bootstrap,
    calibration_error,
    compare,
    forgetting,
    macro_f1,
    paired,
    robustness,
    sign_test,
    summary,
)
from tests.jobs.rows import calm


def answers(replies: str, target: str = "a", confidence: float = 0.9) -> list[Answer]:
    return [Answer(reply, float(reply == target), confidence, 0.5) for reply in replies]


def test_a_comparison_counts_wins_and_losses() -> None:
    result = compare(["a"] * 8, answers("aabbbbbb"), answers("aaaaaaab"), seed=0)
    assert (result["champion"], result["candidate"], result["n"]) == (0.25, 0.875, 8)
    assert (result["better"], result["worse"]) == (5, 0)
    assert result["delta"] == pytest.approx(0.625)
    assert result["p"] == pytest.approx(2 * 0.5**5)
    assert 0.2 < result["ci"][0] < result["delta"] < result["ci"][1] <= 1.0
    assert result["metrics"]["candidate"]["exact_match"] == 0.875
    assert result["metrics"]["candidate"]["perplexity"] == pytest.approx(math.exp(0.5))


def test_the_same_system_twice_differs_by_nothing() -> None:
    same = compare(["a"] * 4, answers("abab"), answers("abab"), seed=0)
    assert (same["delta"], same["ci"], same["p"]) == (0.0, [0.0, 0.0], 1.0)


def test_an_empty_slice_says_so() -> None:
    assert compare([], [], [], seed=0) == {"champion": 0.0, "candidate": 0.0, "n": 0}


def test_classes_get_an_f1_and_texts_none() -> None:
    classes = compare(["a", "b", "a", "b"], answers("aaaa"), answers("abab"), seed=0)["metrics"]
    assert classes["champion"]["macro_f1"] == pytest.approx((2 * 2 / 6 + 0) / 2)
    assert classes["candidate"]["macro_f1"] == 1.0
    texts = compare(["one", "two", "three"], answers("xyz"), answers("xyz"), seed=0)["metrics"]
    assert "macro_f1" not in texts["champion"]


def test_macro_f1_by_hand() -> None:
    assert macro_f1(["a", "a", "b"], ["a", "b", "b"]) == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_calibration_error_by_hand() -> None:
    assert calibration_error([0.95, 0.95, 0.15, 0.15], [1, 1, 0, 1]) == pytest.approx((0.1 + 0.7) / 4)
    assert calibration_error([1.0], [1.0]) == 0.0


@calm
@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_is_a_probability_and_symmetric(better: int, worse: int) -> None:
    p = sign_test(better, worse)
    assert 0.0 < p <= 1.0
    assert p == sign_test(worse, better)


def test_the_sign_test_by_hand() -> None:
    assert sign_test(0, 0) == 1.0
    assert sign_test(9, 1) == pytest.approx(2 * 11 / 1024)


@calm
@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=50), st.integers(0, 5))
def test_the_interval_is_ordered_bounded_and_repeatable(differences: list[float], seed: int) -> None:
    low, high = bootstrap(differences, seed=seed, resamples=100)
    assert min(differences) <= low <= high <= max(differences)
    assert (low, high) == bootstrap(differences, seed=seed, resamples=100)


def test_the_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    """A coin with mean 0.3: of 200 intervals from 80 tosses each, 95% ± 4 cover it."""
    import random

    covered = 0
    for seed in range(200):
        rng = random.Random(seed)
        tosses = [float(rng.random() < 0.3) for _ in range(80)]
        low, high = bootstrap(tosses, seed=seed, resamples=200)
        covered += low <= 0.3 <= high
    assert 182 <= covered <= 200


def test_the_summary_names_what_was_measured() -> None:
    told = summary(
        {"new": {"champion": 0.0, "candidate": 0.9, "n": 10}, "replay": {"champion": 0, "candidate": 0, "n": 0}}
    )
    assert told == "new 0.0% → 90.0% (n=10)"


def test_the_base_is_compared_row_by_row() -> None:
    found = paired([0.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0], "base", seed=0)
    assert (found["base"], found["candidate"], found["delta"], found["n"]) == (0.25, 0.75, 0.5, 4)
    assert found["ci"][0] <= 0.5 <= found["ci"][1]
    assert paired([], [], "base", seed=0) == {"n": 0}


def test_forgetting_counts_what_was_lost_and_what_was_gained() -> None:
    found = forgetting(compare(["a"] * 10, answers("aaaaaaaabb"), answers("aaaaabbbab"), seed=0))
    assert (found["n"], found["lost"], found["gained"]) == (10, 3, 1)
    assert found["drop"] == pytest.approx(0.2)
    assert found["ci"][0] <= 0.2 <= found["ci"][1]
    assert forgetting(compare([], [], [], seed=0)) == {"n": 0}


def test_robustness_is_the_drop_on_slips_and_the_candidates_beyond_the_champions() -> None:
    found = robustness([1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1], seed=0)
    assert (found["champion"]["drop"], found["candidate"]["drop"], found["more"]["drop"]) == (0.25, 0.5, 0.25)
    assert found["more"]["ci"][0] <= 0.25 <= found["more"]["ci"][1]
    assert robustness([], [], [], [], seed=0) == {"n": 0}
