"""The learning rate over a training, by steps and, where time runs short, by time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain_jobs.recipes.pace import Pace
from tests.jobs.rows import calm


def fresh(recorded: tuple[float, ...] = ()) -> Pace:
    return Pace(warmup_ratio=0.1, max_seconds=100.0, recorded=recorded)


def test_it_warms_up_then_falls_to_nothing() -> None:
    pace = fresh()
    shares = [pace.share(step, 100, seconds=0.0) for step in range(101)]
    assert not pace.timed
    assert shares[:10] == sorted(shares[:10])
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert max(shares) == pytest.approx(1.0, abs=0.05)
    assert shares[100] == pytest.approx(0.0)


@calm
@given(st.integers(0, 100), st.floats(0, 1))
def test_within_the_limit_only_steps_count(step: int, haste: float) -> None:
    assert fresh().share(step, 100, seconds=haste * step) == fresh().share(step, 100, seconds=0.0)


def test_short_of_time_it_ends_with_the_time() -> None:
    assert fresh().share(30, 100, seconds=100.0) == pytest.approx(0.0)
    assert fresh().share(15, 100, seconds=50.0) == pytest.approx(0.5)
    assert fresh().share(1, 10_000, seconds=50.0) == pytest.approx(0.5)


def test_what_was_recorded_is_repeated_whatever_the_clock_says() -> None:
    pace = fresh((0.5, 1.0, 0.25))
    assert [pace.share(step, 100, seconds=1e6) for step in range(4)] == [0.5, 1.0, 0.25, 0.0]
    assert [pace.is_over(step, 1e6) for step in range(4)] == [False, False, False, True]
    assert not pace.timed
