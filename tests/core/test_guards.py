"""Guards: passed only when proven to hold, failed when proven not to, never passed on nothing."""

from __future__ import annotations

import math
import random

import pytest

from service.core.guards import Answer, Beside, Guard, judge_guard, judge_measured, judge_slices
from service.core.promotion import Decision, Pair, Policy

POLICY = Policy(alpha=0.05, min_pairs=30, max_pairs=1000, max_shadow_s=600.0, golden_margin=0.03, indifference=0.02)
SAME = Beside(Answer("track_order", -0.1), Answer("track_order", -0.1))
LONGER = Beside(Answer("yes"), Answer("yes " * 50))
REFUSES = Beside(Answer("Go to settings."), Answer("I'm sorry, I can't help with that."))
FAILS = Beside(Answer("yes"), Answer("", failed=True))
UNSURE = Beside(Answer("yes", -0.05), Answer("yes", -2.0))
OTHER = Beside(Answer("yes"), Answer("no"))


@pytest.mark.parametrize(
    ("guard", "bad"),
    [
        (Guard.LENGTH, LONGER),
        (Guard.REFUSALS, REFUSES),
        (Guard.ERRORS, FAILS),
        (Guard.CONFIDENCE, UNSURE),
        (Guard.AGREEMENT, OTHER),
    ],
)
def test_each_guard_lets_the_same_pass_and_stops_what_it_is_for(guard: Guard, bad: Beside) -> None:
    def found(rows: list[Beside], elapsed_s: float = 1.0) -> Decision:
        return judge_guard(guard, rows, 0.1, POLICY, elapsed_s=elapsed_s).decision

    assert found([SAME] * 200) is Decision.PROMOTE
    assert found([bad] * 60) is Decision.REJECT
    assert found([SAME] * 29) is Decision.HOLD
    assert found([]) is Decision.HOLD
    assert found([], 601.0) is Decision.REJECT
    assert found([SAME, SAME, bad, bad] * 250) is Decision.REJECT


def test_replies_that_failed_and_confidence_that_is_no_number_say_nothing() -> None:
    silent = [FAILS, Beside(Answer("a", math.nan), Answer("a", -0.1)), Beside(Answer("a"), Answer("a", -0.1))] * 40
    found = judge_guard(Guard.CONFIDENCE, silent, 0.1, POLICY, elapsed_s=1.0)
    assert (found.decision, found.reasons[0][:22]) == (Decision.HOLD, "confidence: no request")
    for guard in (Guard.AGREEMENT, Guard.LENGTH, Guard.REFUSALS):
        assert judge_guard(guard, [FAILS] * 40, 0.1, POLICY, elapsed_s=1.0).decision is Decision.HOLD


def test_a_candidate_at_the_margin_passes_seldom_however_often_it_is_looked_at() -> None:
    chance, passed = random.Random(0), 0
    for _ in range(200):
        rows = [OTHER if chance.random() < 0.2 else SAME for _ in range(300)]
        passed += any(
            judge_guard(Guard.AGREEMENT, rows[:n], 0.2, POLICY, elapsed_s=1.0).decision is Decision.PROMOTE
            for n in range(30, 301, 15)
        )
    assert passed <= 16


def test_a_slice_that_is_proven_worse_rejects_and_a_rare_one_is_not_waited_for() -> None:
    good, bad = Pair(0.0, 1.0), Pair(1.0, 0.0)
    ruling = judge_slices({"lang=de": [good] * 50, "lang=fr": [bad] * 30}, 0.1, POLICY)
    assert ruling.decision is Decision.REJECT
    assert ruling.reasons[0].startswith("slice lang=fr: -1.000 on 30 labelled pairs, allowed -0.100")
    rare = judge_slices({"lang=de": [good] * 50, "lang=fr": [bad] * 2, "lang=it": [Pair(math.nan, 1.0)]}, 0.1, POLICY)
    assert rare.decision is Decision.PROMOTE
    assert "lang=fr -1.000 on 2 pairs" in rare.reasons[0]
    assert judge_slices({}, 0.1, POLICY).decision is Decision.PROMOTE


def test_ten_slices_on_which_nothing_changed_seldom_reject() -> None:
    chance, rejected = random.Random(0), 0
    for _ in range(200):
        slices = {f"s={n}": [Pair(0.5, 0.5 + chance.choice((-0.5, 0.5))) for _ in range(100)] for n in range(12)}
        rejected += judge_slices(slices, 0.01, POLICY).decision is Decision.REJECT
    assert rejected <= 16


@pytest.mark.parametrize(
    ("loss", "most", "n", "decision"),
    [
        (0.0, 0.1, 48, Decision.PROMOTE),
        (0.3, 0.6, 48, Decision.REJECT),
        (0.0, 0.25, 48, Decision.REJECT),
        (0.0, 0.1, 0, Decision.HOLD),
        (None, 0.1, 48, Decision.HOLD),
        (0.0, None, 48, Decision.HOLD),
        (math.nan, 0.1, 48, Decision.HOLD),
    ],
)
def test_what_the_evaluation_measured_must_lie_within_the_margin(
    loss: float | None, most: float | None, n: int, decision: Decision
) -> None:
    assert judge_measured(Guard.TTFT, loss, most, n, 0.2).decision is decision
