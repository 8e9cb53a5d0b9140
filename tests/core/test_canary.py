"""A step of the canary: on with evidence, back on proof against it or without evidence in time."""

from __future__ import annotations

import math
import random

import pytest

from service.core.canary import CanaryRule, Live, judge_canary
from service.core.promotion import Decision

RULE = CanaryRule(step_s=60.0, min_labelled=20, alpha=0.05)
GOOD, FINE = Live([1.0] * 200, [False] * 300), Live([0.9] * 30, [False] * 40)


@pytest.mark.parametrize(
    ("champion", "candidate", "elapsed_s", "decision"),
    [
        pytest.param(GOOD, FINE, 10.0, Decision.HOLD, id="too soon"),
        pytest.param(GOOD, FINE, 61.0, Decision.PROMOTE, id="on"),
        pytest.param(GOOD, Live([0.1] * 30, [False] * 40), 10.0, Decision.REJECT, id="worse, at once"),
        pytest.param(GOOD, Live([1.0] * 5, [True] * 40), 10.0, Decision.REJECT, id="it fails"),
        pytest.param(
            Live([1.0] * 9, [True] * 40), Live([1.0] * 30, [True] * 40), 61.0, Decision.PROMOTE, id="both fail"
        ),
        pytest.param(GOOD, Live([1.0] * 5, [False] * 40), 61.0, Decision.HOLD, id="too few labels"),
        pytest.param(GOOD, Live([1.0] * 5, [False] * 40), 181.0, Decision.REJECT, id="too few labels for too long"),
        pytest.param(GOOD, Live([], []), 61.0, Decision.HOLD, id="nothing"),
        pytest.param(GOOD, Live([math.nan] * 99, [False] * 99), 61.0, Decision.HOLD, id="nothing but NaN"),
        pytest.param(Live([], []), FINE, 61.0, Decision.HOLD, id="nothing of the champion"),
    ],
)
def test_a_step(champion: Live, candidate: Live, elapsed_s: float, decision: Decision) -> None:
    found = judge_canary(champion, candidate, RULE, share=0.05, elapsed_s=elapsed_s)
    assert found.decision is decision
    assert "At 5% of the clients" in found.reasons[0]


def test_a_candidate_that_is_no_worse_is_seldom_stopped_however_often_it_is_looked_at() -> None:
    chance, stopped = random.Random(0), 0
    for _ in range(200):
        scores = [[float(chance.random() < 0.8) for _ in range(200)] for _ in range(2)]
        failed = [[chance.random() < 0.02 for _ in range(200)] for _ in range(2)]
        stopped += any(
            judge_canary(
                Live(scores[0][:n], failed[0][:n]), Live(scores[1][:n], failed[1][:n]), RULE, share=0.5, elapsed_s=1.0
            ).decision
            is Decision.REJECT
            for n in range(10, 201, 10)
        )
    assert stopped <= 10
