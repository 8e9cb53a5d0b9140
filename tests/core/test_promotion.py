"""The evidence rules: declared error rates hold under peeking, and nothing is promoted without evidence."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.promotion import (
    BETS,
    Decision,
    GoldenScores,
    Pair,
    Past,
    Policy,
    Ruling,
    WatchRule,
    e_value,
    judge_golden,
    judge_shadow,
    judge_watch,
    worst,
)

POLICY = Policy(alpha=0.05, min_pairs=30, max_pairs=1000, max_shadow_s=600.0, golden_margin=0.03, indifference=0.02)
unit = st.floats(0.0, 1.0)
differences = st.lists(st.floats(-1.0, 1.0), max_size=60)


def pairs(draw: random.Random, n: int, champion: float, candidate: float) -> list[Pair]:
    return [Pair(float(draw.random() < champion), float(draw.random() < candidate)) for _ in range(n)]


def test_false_promotions_stay_below_alpha_under_continuous_peeking() -> None:
    """The full simulation is `python -m benchmarks.promotion`."""
    runs, false = 400, 0
    for seed in range(runs):
        draw = random.Random(seed)
        differences = [p.candidate - p.champion for p in pairs(draw, 300, 0.7, 0.7)]
        false += any(e_value(differences[:n]) >= 20.0 for n in range(30, 301, 10))
    assert false / runs <= 0.05


def test_the_weights_of_the_bets_are_a_mixture_and_no_bet_can_lose_everything() -> None:
    assert math.isclose(sum(weight for _, weight in BETS), 1.0)
    assert all(0.0 < bet < 1.0 for bet, _ in BETS)
    assert e_value([]) == pytest.approx(1.0)


@given(st.integers(1, 20), st.floats(-0.5, 0.5))
def test_a_fair_pair_leaves_the_evidence_where_it_is_on_average(n: int, null_mean: float) -> None:
    """One more difference of ±spread around the null's mean: the expected e-value is the one before (a martingale)."""
    before = [0.3] * n
    spread = 1.0 - abs(null_mean)
    after = [e_value([*before, null_mean + way * spread], null_mean=null_mean) for way in (1, -1)]
    assert sum(after) / 2 == pytest.approx(e_value(before, null_mean=null_mean))


@given(differences.flatmap(lambda found: st.tuples(st.just(found), st.permutations(found))))
def test_the_order_in_which_labels_come_changes_nothing(found: tuple[list[float], list[float]]) -> None:
    assert e_value(found[0]) == pytest.approx(e_value(found[1]))


@given(differences, st.floats(-0.5, 0.5), st.floats(0.0, 0.4))
def test_a_weaker_claim_has_no_less_evidence(found: list[float], null_mean: float, less: float) -> None:
    """What speaks against a mean of at most m speaks against one of at most m - x."""
    weaker = e_value(found, null_mean=null_mean - less)
    assert weaker >= e_value(found, null_mean=null_mean) * (1 - 1e-9)


def test_a_large_gain_is_promoted_within_few_pairs() -> None:
    promoted = [
        judge_shadow(pairs(random.Random(seed), 60, 0.5, 0.95), POLICY, elapsed_s=10.0).decision for seed in range(20)
    ]
    assert promoted.count(Decision.PROMOTE) >= 19


def test_it_is_promoted_with_the_pair_that_completes_the_evidence_and_none_before() -> None:
    drawn = pairs(random.Random(1), 400, 0.5, 0.65)
    for n in range(POLICY.min_pairs, 401):
        evidence = e_value([pair.candidate - pair.champion for pair in drawn[:n]])
        ruling = judge_shadow(drawn[:n], POLICY, elapsed_s=1.0)
        assert (ruling.decision is Decision.PROMOTE) == (evidence >= 1.0 / POLICY.alpha)
        if ruling.decision is Decision.PROMOTE:
            break
    assert POLICY.min_pairs < n < 400


def test_a_worse_candidate_is_rejected() -> None:
    ruling = judge_shadow(pairs(random.Random(1), 100, 0.95, 0.5), POLICY, elapsed_s=10.0)
    assert ruling.decision is Decision.REJECT
    assert "no gain of 2.0%" in ruling.reasons[0]


def test_a_gain_within_the_indifference_is_rejected_before_the_samples_run_out() -> None:
    even = [Pair(1.0, 1.0)] * 200
    patient = replace(POLICY, indifference=0.0)
    assert judge_shadow(even, replace(POLICY, indifference=0.05), elapsed_s=1.0).decision is Decision.REJECT
    assert judge_shadow(even, patient, elapsed_s=1.0).decision is Decision.HOLD
    worse = judge_shadow(pairs(random.Random(1), 100, 0.95, 0.5), patient, elapsed_s=10.0)
    assert "no gain (evidence" in worse.reasons[0]


@given(st.lists(st.tuples(unit, unit), max_size=29))
def test_below_the_minimum_nothing_is_promoted(scores: list[tuple[float, float]]) -> None:
    found = judge_shadow([Pair(*s) for s in scores], POLICY, elapsed_s=1.0)
    assert found.decision is Decision.HOLD


def test_the_minimum_holds_back_the_strongest_case() -> None:
    better, worse = [Pair(0.0, 1.0)] * 30, [Pair(1.0, 0.0)] * 30
    assert judge_shadow(better[1:], POLICY, elapsed_s=1.0).decision is Decision.HOLD
    assert judge_shadow(worse[1:], POLICY, elapsed_s=1.0).decision is Decision.HOLD
    assert judge_shadow(better, POLICY, elapsed_s=1.0).decision is Decision.PROMOTE
    assert judge_shadow(worse, POLICY, elapsed_s=1.0).decision is Decision.REJECT


@given(st.lists(st.tuples(unit, unit), min_size=40, max_size=60), st.integers(0, 39))
def test_one_nan_holds(scores: list[tuple[float, float]], where: int) -> None:
    broken = [Pair(*s) for s in scores]
    broken[where] = Pair(0.0, math.nan)
    for elapsed_s in (1.0, POLICY.max_shadow_s):
        assert judge_shadow(broken, POLICY, elapsed_s=elapsed_s).decision is Decision.HOLD


def test_samples_and_time_run_out() -> None:
    even = [Pair(1.0, 1.0)] * POLICY.max_pairs
    assert judge_shadow(even, POLICY, elapsed_s=1.0).decision is Decision.REJECT
    assert judge_shadow(even[:50], POLICY, elapsed_s=600.0).decision is Decision.REJECT
    assert "within 50 pairs" in judge_shadow(even[:50], replace(POLICY, max_pairs=50), elapsed_s=1.0).reasons[0]
    assert judge_shadow([], POLICY, elapsed_s=600.0).decision is Decision.REJECT
    assert judge_shadow(even[:5], POLICY, elapsed_s=600.0).decision is Decision.REJECT
    assert judge_shadow(even[:50], POLICY, elapsed_s=1.0).decision is Decision.HOLD


@given(st.lists(st.floats(-1.0, 1.0), max_size=200))
def test_e_values_are_positive_and_finite(differences: list[float]) -> None:
    assert 0.0 < e_value(differences) < math.inf


@pytest.mark.parametrize(
    ("golden", "decision"),
    [
        (None, Decision.HOLD),
        (GoldenScores(0.9, 0.9, 0), Decision.HOLD),
        (GoldenScores(math.nan, 0.9, 10), Decision.HOLD),
        (GoldenScores(0.9, math.inf, 10), Decision.HOLD),
        (GoldenScores(0.9, 0.86, 10), Decision.REJECT),
        (GoldenScores(0.9, 0.88, 10), Decision.PROMOTE),
        (GoldenScores(0.92, 0.89, 100), Decision.PROMOTE),
        (GoldenScores(0.9, 0.95, 10), Decision.PROMOTE),
    ],
)
def test_golden_gate(golden: GoldenScores | None, decision: Decision) -> None:
    assert judge_golden(golden, POLICY).decision is decision


@pytest.mark.parametrize(
    ("scores", "elapsed_s", "decision"),
    [
        ([], 10.0, Decision.HOLD),
        ([1.0] * 40, 10.0, Decision.HOLD),
        ([1.0] * 40, 61.0, Decision.PROMOTE),
        ([1.0] * 5, 61.0, Decision.HOLD),
        ([1.0] * 5, 181.0, Decision.PROMOTE),
        ([0.0] * 40, 10.0, Decision.REJECT),
        ([0.0] * 5, 10.0, Decision.HOLD),
    ],
)
def test_watch(scores: list[float], elapsed_s: float, decision: Decision) -> None:
    found = judge_watch(scores, Past(0.9), [], POLICY, WatchRule(60.0, 30), elapsed_s=elapsed_s)
    assert found.decision is decision


WORSE, BETTER = [Pair(0.0, 1.0)] * 20, [Pair(1.0, 0.0)] * 20
"""The new champion's score and the previous one's on the same requests."""


@pytest.mark.parametrize(
    ("scores", "past", "pairs", "decision"),
    [
        pytest.param([0.6] * 60, Past(0.5, 0.9), [], Decision.REJECT, id="far behind its own shadow"),
        pytest.param([0.85] * 60, Past(0.5, 0.9), [], Decision.HOLD, id="a little behind it"),
        pytest.param([0.6] * 60, Past(0.5, 0.9), BETTER, Decision.HOLD, id="behind it, as the previous one is"),
        pytest.param([0.6] * 60, Past(0.5, 0.6), WORSE, Decision.REJECT, id="the previous one does better now"),
        pytest.param([0.6] * 60, Past(0.5, 0.6), BETTER, Decision.HOLD, id="the previous one does worse now"),
        pytest.param([0.0] * 60, Past(0.0, 1.0), [], Decision.REJECT, id="good in shadow only, before it nothing"),
        pytest.param([math.nan] * 60, Past(0.9, 0.9), [], Decision.HOLD, id="nothing but NaN"),
        pytest.param([0.6] * 60, Past(0.5), [Pair(math.nan, 1.0)] * 30, Decision.HOLD, id="pairs of NaN"),
    ],
)
def test_the_watch_compares_with_the_previous_one_and_with_the_champions_own_shadow(
    scores: list[float], past: Past, pairs: list[Pair], decision: Decision
) -> None:
    assert judge_watch(scores, past, pairs, POLICY, WatchRule(60.0, 30), elapsed_s=10.0).decision is decision


def test_the_worst_gate_wins_and_no_gate_holds() -> None:
    def of(decision: Decision) -> Ruling:
        return Ruling(decision, ("",))

    assert worst([]) is Decision.HOLD
    assert worst([of(Decision.PROMOTE)]) is Decision.PROMOTE
    assert worst([of(Decision.PROMOTE), of(Decision.HOLD)]) is Decision.HOLD
    assert worst([of(Decision.HOLD), of(Decision.REJECT), of(Decision.PROMOTE)]) is Decision.REJECT
