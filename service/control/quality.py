"""Served quality over time, from labelled captures: each reply is scored once, however many people look."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

from service.control.evidence import label_score
from service.ports import Clock, Store
from service.settings import Settings

SERIES_ROWS = 1000
REFRESH_S = 1.0
_YIELD_EVERY = 25
"""Replies scored before other requests get a turn: the gateway may run in this process."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One labelled reply's score (0..1) and when it was served (Unix seconds)."""

    at: float
    score: float


@dataclass(frozen=True, slots=True)
class Point:
    """Mean score of the `n` replies in one bucket of time; `at` is their mean time."""

    at: float
    quality: float
    n: int


def mean_of_newest(scored: Sequence[Scored], window: int) -> tuple[float | None, int]:
    """Mean over the newest `window` scores, and how many there were; None of nothing."""
    newest = scored[-window:]
    return (math.fsum(s.score for s in newest) / len(newest) if newest else None), len(newest)


def buckets(scored: Sequence[Scored], points: int) -> list[Point]:
    """At most `points` means over equal spans of time; a span without replies gives no point."""
    if not scored:
        return []
    start, end = scored[0].at, scored[-1].at
    span = (end - start) / points or 1.0
    filled: dict[int, list[Scored]] = {}
    for one in scored:
        filled.setdefault(min(points - 1, int((one.at - start) / span)), []).append(one)
    return [
        Point(math.fsum(s.at for s in group) / len(group), math.fsum(s.score for s in group) / len(group), len(group))
        for group in filled.values()
    ]


class QualityBoard:
    """Scores of each alias's newest labelled replies, read from the store at most once every `REFRESH_S`."""

    def __init__(self, store: Store, settings: Settings, clock: Clock) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._known: dict[str, dict[tuple[str, str], Scored | None]] = {}
        self._read_at: dict[str, float] = {}
        self._reading: dict[str, asyncio.Lock] = {}

    async def scored(self, alias: str) -> list[Scored]:
        """The scored replies in order of time, at most `SERIES_ROWS`."""
        async with self._reading.setdefault(alias, asyncio.Lock()):
            if self._clock.now() - self._read_at.get(alias, -math.inf) >= REFRESH_S:
                await self._refresh(alias)
        return [one for one in self._known[alias].values() if one is not None]

    async def now(self, alias: str) -> tuple[float | None, int]:
        """Mean score of the newest labelled replies, and how many they are."""
        return mean_of_newest(await self.scored(alias), self._settings.controller.quality_window)

    async def _refresh(self, alias: str) -> None:
        rows = await self._store.window(alias, since=0.0, limit=SERIES_ROWS, newest=True, labelled_only=True)
        before, judged = self._known.get(alias, {}), self._settings.alias(alias)
        found: dict[tuple[str, str], Scored | None] = {}
        for number, row in enumerate(rows):
            key = (row.capture.request_id, row.feedback.id if row.feedback else "")
            if key in before:
                found[key] = before[key]
                continue
            value = label_score(row, judged)
            found[key] = None if value is None else Scored(row.capture.at, value)
            if number % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
        self._known[alias] = found
        self._read_at[alias] = self._clock.now()
