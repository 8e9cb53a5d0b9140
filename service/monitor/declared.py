"""The declared rate of false alarms, in requests: as it was given, or from days at the traffic of the last day."""

from __future__ import annotations

from service.ports import Clock, Traffic
from service.settings import DriftSettings

_DAY_S = 86_400.0
_AGAIN_S = 3_600.0
_LEAST_SPAN_S = 60.0
_LEAST_EVERY = 100
_CHANGED = 1.5
"""A new rate begins all evidence anew, so it takes a clear change of the traffic."""


class Declared:
    """How many requests there shall be between an alias's false alarms. Looks at the traffic once an hour."""

    def __init__(self, drift: DriftSettings, traffic: Traffic, clock: Clock) -> None:
        self._drift = drift
        self._traffic = traffic
        self._clock = clock
        self._known: dict[str, tuple[float, int]] = {}

    async def every(self, alias: str) -> int:
        days, now = self._drift.false_alarm_days, self._clock.now()
        if days is None:
            return self._drift.false_alarm_every
        looked_at, every = self._known.get(alias, (-_AGAIN_S, 0))
        if now - looked_at >= _AGAIN_S:
            found = max(_LEAST_EVERY, round(days * await requests_a_day(self._traffic, alias, now)))
            if not every / _CHANGED <= found <= every * _CHANGED:
                every = found
            self._known[alias] = (now, every)
        return every


async def requests_a_day(traffic: Traffic, alias: str, now: float) -> float:
    """By the successful requests of the day before `now`, or of as long as there are any."""
    oldest = await traffic.window(alias, since=0.0, limit=1)
    if not oldest:
        return 0.0
    span = min(_DAY_S, max(_LEAST_SPAN_S, now - oldest[0].capture.at))
    count = await traffic.count(alias, since=now - span) - await traffic.count(alias, since=now)
    return max(0, count) * _DAY_S / span
