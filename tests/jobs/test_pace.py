"""The learning rate over a training, by steps and, where time runs short, by time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain_jobs.recipes.pace import Pace
from tests.jobs.rows import calm

PACE = Pace(warmup_ratio=0.1, max_seconds=100.0)


def test_it_warms_up_then_falls_to_nothing() -> None:
    shares = [PACE.share(step, 100, seconds=0.0) for step in range(101)]
    assert shares[:10] == sorted(shares[:10])
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert max(shares) == pytest.approx(1.0, abs=0.05)
    assert shares[100] == pytest.approx(0.0)


@calm
@given(st.integers(0, 100), st.floats(0, 1))
def test_within_the_limit_only_steps_count(step: int, haste: float) -> None:
    assert PACE.share(step, 100, seconds=haste * step) == PACE.share(step, 100, seconds=0.0)


def test_short_of_time_it_ends_with_the_time() -> None:
    assert PACE.share(30, 100, seconds=100.0) == pytest.approx(0.0)
    assert PACE.share(15, 100, seconds=50.0) == pytest.approx(0.5)
    assert PACE.share(1, 10_000, seconds=50.0) == pytest.approx(0.5)
