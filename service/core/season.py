"""Times that repeat: with a season, a request is compared only with reference requests of the same phase."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

_PARTS = 6
"""Of a day: four hours each."""

_WEEKEND = (5, 6)


class Season(StrEnum):
    """`day`: four-hour parts of the day (UTC); `week`: those, and weekends apart."""

    NONE = "none"
    DAY = "day"
    WEEK = "week"


def phase_of(at: float, season: Season) -> int:
    """The phase of a time (Unix seconds), from 0."""
    if season is Season.NONE:
        return 0
    time = datetime.fromtimestamp(at, UTC)
    part = time.hour * _PARTS // 24
    return part + _PARTS if season is Season.WEEK and time.weekday() in _WEEKEND else part
