"""Phases: what repeats by the day or the week falls together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.core.season import Season, phase_of

DAY_S = 86_400.0
times = st.floats(0, 4e9)


@given(times)
def test_without_a_season_all_times_are_alike(at: float) -> None:
    assert phase_of(at, Season.NONE) == 0


@given(st.integers(0, 40_000), st.integers(0, 6))
def test_days_repeat_and_weekends_are_apart(hours: int, days: int) -> None:
    at = hours * 3600.0
    assert phase_of(at, Season.DAY) == phase_of(at + days * DAY_S, Season.DAY)
    assert phase_of(at, Season.WEEK) == phase_of(at + 7 * DAY_S, Season.WEEK)
    weekend = int(at // DAY_S) % 7 in (2, 3)  # the first day of Unix time was a Thursday
    assert (phase_of(at, Season.WEEK) >= 6) == weekend


def test_a_part_of_a_day_is_four_hours() -> None:
    assert [phase_of(hour * 3600.0, Season.DAY) for hour in range(24)] == [hour // 4 for hour in range(24)]
