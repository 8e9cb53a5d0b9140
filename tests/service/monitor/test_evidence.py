"""Bets pay 1 on average without drift, whatever the data; the evidence that they add up to begins and ends alarms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.drift import Kind
from service.monitor.betting import LOSS, SHIFT, TAIL, TOPIC, Bet, Tilt, payoffs, tilted
from service.monitor.evidence import Evidence
from service.monitor.level import LABELS, REQUESTS, Level
from service.monitor.signals import Signal

BETS = (*TAIL, *SHIFT, *LOSS)
ONE = (Signal("one", Kind.INPUT, 1.0, TAIL),)


def evidence(seed: int = 0, n: int = 500, signals: tuple[Signal, ...] = ONE, every: float = 10_000) -> Evidence:
    rows = np.random.default_rng(seed).normal(size=(n, len(signals)))
    return Evidence(signals, rows, [0] * n, every=every, step=1.0, needs=REQUESTS)


@given(st.lists(st.integers(0, 6), min_size=2, max_size=40), st.sampled_from(BETS))
def test_a_bet_pays_1_on_average_whatever_the_values(values: list[int], bet: Bet) -> None:
    found = np.asarray(values, np.float64)
    above = (found[None] > found[:, None]).sum(1).astype(float)
    upto = (found[None] >= found[:, None]).sum(1) - 1.0
    paid = payoffs(above, upto, np.asarray(len(found) - 1.0), np.asarray(bet.share), np.asarray(bet.power))
    assert (paid > 0).all()
    assert paid.mean() == pytest.approx(1.0)


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=40), st.sampled_from(TOPIC))
def test_a_tilt_pays_1_on_average_whatever_the_values(values: list[float], bet: Tilt) -> None:
    found = np.asarray(values)
    others = np.asarray([np.delete(found, i) for i in range(len(found))])
    total = np.logaddexp.reduce(bet.power * others, axis=1)
    paid = tilted(found, total, np.asarray(len(found) - 1.0), np.asarray(bet.share), np.asarray(bet.power))
    assert (paid > 0).all()
    assert paid.mean() == pytest.approx(1.0)


def test_a_tilt_pays_in_proportion_to_what_the_value_says() -> None:
    tilts = evidence(signals=(Signal("one", Kind.INPUT, 1.0, (Tilt(0.5, 1.0),)),))
    assert tilts.level == 0.0
    tilts.take(np.full((10, 1), 3.0))
    strange = tilts.level
    tilts.take(np.full((10, 1), -3.0))
    assert 0 < tilts.level < strange


@pytest.mark.parametrize("needs", [REQUESTS, LABELS])
@given(ranked=st.integers(1, 10_000), every=st.floats(100, 1e7))
def test_more_to_rank_among_asks_for_less(needs: Level, ranked: int, every: float) -> None:
    asked = needs.needed(every, 1.0, ranked)
    assert asked > needs.needed(every, 1.0, ranked + 100) > needs.share * every
    assert needs.needed(every, 10.0, ranked) < asked


@given(st.lists(st.floats(-1.5, 1.5), min_size=40, max_size=120), st.integers(1, 39))
def test_it_does_not_matter_in_how_many_pieces_requests_come(values: list[float], at: int) -> None:
    rows = np.asarray(values)[:, None]
    whole, pieces = evidence(), evidence()
    whole.take(rows)
    pieces.take(rows[:at])
    pieces.take(rows[at:])
    assert pieces.level == pytest.approx(whole.level, rel=1e-9)
    assert pieces.alarm == whole.alarm


def test_drift_raises_an_alarm_that_ends_with_it_and_its_requests_are_not_learned() -> None:
    rng = np.random.default_rng(1)
    found = evidence()
    found.take(rng.normal(size=(2000, 1)))
    assert not found.alarm
    known = found.ranked
    assert known > 1000
    found.take(rng.normal(size=(100, 1)) + 3.0 * (rng.random((100, 1)) < 0.5))
    assert found.alarm
    since = found.shares()[0].since
    assert 1900 <= since <= 2030
    found.take(rng.normal(size=(5000, 1)) + 3.0 * (rng.random((5000, 1)) < 0.5))
    assert found.alarm
    assert found.ranked <= known + 700
    for _ in range(40):
        found.take(rng.normal(size=(100, 1)))
    assert not found.alarm


def test_what_is_unknown_or_never_varies_says_nothing() -> None:
    two = (Signal("missing", Kind.INPUT, 0.5, TAIL), Signal("constant", Kind.OUTPUT, 0.5, SHIFT))
    rows = np.column_stack([np.full(300, np.nan), np.ones(300)])
    found = Evidence(two, rows, [0] * 300, every=100.0, step=1.0, needs=REQUESTS)
    found.take(np.column_stack([np.full(5000, np.nan), np.ones(5000)]))
    assert (found.level, found.alarm, found.shares()) == (0.0, False, [])
    assert evidence(n=5).level == 0.0


def test_a_few_requests_are_not_enough_to_say() -> None:
    found = evidence()
    found.take(np.full((9, 1), 50.0))
    assert not found.alarm
    found.take(np.full((1, 1), 50.0))
    assert found.alarm


def test_a_phase_without_reference_is_learned_before_it_is_judged() -> None:
    rng = np.random.default_rng(2)
    found = evidence()
    found.take(rng.normal(size=(700, 1)) + 50.0, phase=3)
    assert not found.alarm
    found.take(rng.normal(size=(700, 1)) + 50.0, phase=3)
    assert not found.alarm
    found.take(rng.normal(size=(50, 1)), phase=0)
    found.take(rng.normal(size=(50, 1)) + 90.0, phase=3)
    assert found.alarm
