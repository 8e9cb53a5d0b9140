"""Evidence of drift, gathered request by request: bets on every signal, summed up since every possible onset.

Each bet's winnings are a Shiryaev-Roberts sum R = (R + 1) * payoff, and the level is the mean of the sums by the bets'
weights: an e-detector (Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for sequential change
detection", 2024). While nothing changes the level grows by 1 a request on average, whatever the signals' distribution
and however they move together; the declared number of requests between false alarms sets how high it must get.

Requests are ranked among the reference's and among later ones that proved harmless, which wears off what is odd about
one reference. Requests of an alarm are never taken in.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.monitor.betting import Floats, Tilt, payoffs, tilted
from service.monitor.level import Level
from service.monitor.signals import Signal

Rows = Floats
"""Strangeness, shape [requests, signals]; NaN is unknown."""

_BLOCK = 32
_LAG = 250
"""Requests are ranked among once so many came after them: mild drift has been noticed by then."""

_TAKEN_IN = 64
"""At least so many at a time: sorting them in is the most expensive step."""

_MOST_RANKED = 4000
_LEAST_RANKED = 20
_LEAST_SEEN = 10
"""Fewer requests than these are not enough to say, however strange they are."""
_HARMLESS = 1 / 4
"""Of an alarm's level: below it, the requests that waited count as harmless."""

_OVER = 1 / 10
"""Of an alarm's level: below it, the alarm is over."""

_MEMORY = 0.2
"""Of the declared requests: so fast evidence fades, or bets that say nothing would add up by their number alone."""

_NOTHING = 1e-9
"""A payoff this near to 1 comes of values that are all equal: it says nothing."""

_CAP = 10.0
"""In alarms' levels: what is beyond only delays the end of an alarm."""

_REPLACED = 2


class Ranked:
    """What requests are ranked among: one sorted column a signal, of numbers only.

    The reference's rows leave once twice as many later ones are there: they were measured against each other, the later
    ones against all of them, which is nearly but not quite the same.
    """

    def __init__(self, rows: Rows) -> None:
        self.columns = _sorted(rows)
        self._reference, self._later = len(rows), np.empty((0, rows.shape[1]))
        self._totals: dict[tuple[int, float], float] = {}

    @property
    def size(self) -> int:
        return max((len(column) for column in self.columns), default=0)

    def add(self, rows: Rows) -> None:
        self._totals.clear()
        self._later = np.vstack([self._later, rows])
        if self._reference and len(self._later) >= _REPLACED * self._reference:
            self._reference = 0
            self.columns = _sorted(self._later)
            return
        added = _sorted(rows)
        self.columns = [np.sort(np.concatenate(pair), kind="stable") for pair in zip(self.columns, added, strict=True)]

    def places(self, rows: Rows) -> tuple[Floats, Floats, Floats]:
        """How many are stranger, how many at least as strange, and among how many; 0 where that is too few to say."""
        above, upto, among = np.zeros((3, *rows.T.shape))
        for i, (column, values) in enumerate(zip(self.columns, np.ascontiguousarray(rows.T), strict=True)):
            size = len(column)
            if size >= _LEAST_RANKED:
                above[i] = size - column.searchsorted(values, "right")
                upto[i] = size - column.searchsorted(values, "left")
                among[i] = size
        return above.T, upto.T, among.T

    def total(self, column: int, power: float) -> float:
        """The logarithm of the sum of exp(power * value) over a column."""
        found = self._totals.get((column, power))
        if found is None:
            found = self._totals[column, power] = float(np.logaddexp.reduce(power * self.columns[column]))
        return found


def _sorted(rows: Rows) -> list[Floats]:
    return [np.sort(column[np.isfinite(column)]) for column in rows.T]


@dataclass(frozen=True, slots=True)
class Share:
    """A signal's part (0..1) in the evidence, and since which request it stands (as counted by `seen`)."""

    signal: Signal
    part: float
    since: int


class Evidence:
    """One alias's evidence; `level` is in alarms: one begins at 1 and is over below `_OVER`."""

    def __init__(
        self,
        signals: Sequence[Signal],
        reference: Rows,
        phases: Sequence[int],
        *,
        every: float,
        step: float,
        needs: Level,
    ) -> None:
        """
        Args:
            signals: at least one, the columns of all rows.
            reference: what requests are ranked among at first.
            phases: of each reference row; requests are ranked only within their own phase.
            every: declared requests between false alarms.
            step: how many requests a row stands for (labels come for some).
            needs: what an alarm needs.
        """
        self.signals = tuple(signals)
        self.level, self.alarm, self.seen = 0.0, False, 0
        self._every, self._step, self._needs = every, step, needs
        self._kept = 1.0 - step / (_MEMORY * every)
        bets = [(i, bet, one.weight / len(one.bets)) for i, one in enumerate(self.signals) for bet in one.bets]
        self._signal: NDArray[np.intp] = np.asarray([i for i, _, _ in bets], np.intp)
        self._shares = np.asarray([bet.share for _, bet, _ in bets])
        self._powers = np.asarray([bet.power for _, bet, _ in bets])
        self._tilts = np.asarray([i for i, (_, bet, _) in enumerate(bets) if isinstance(bet, Tilt)], np.intp)
        weights = np.asarray([weight for _, _, weight in bets])
        self._weights = weights / weights.sum()
        self._sums = np.zeros(len(bets))
        self._rise = np.zeros(len(bets))
        self._onset = np.zeros(len(bets), np.intp)
        self._began = 0
        chosen = np.asarray(phases, np.intp)
        self._ranked = {int(phase): Ranked(reference[chosen == phase]) for phase in np.unique(chosen)}
        self._waiting: deque[tuple[int, Rows]] = deque()
        self._waits = 0

    @property
    def ranked(self) -> int:
        """Among how many the requests of the fullest phase are ranked."""
        return max((one.size for one in self._ranked.values()), default=0)

    def declare(self, every: float) -> None:
        """Another number of requests between false alarms from now on."""
        self._every = every
        self._kept = 1.0 - self._step / (_MEMORY * every)

    def on_log_scale(self) -> tuple[float, float]:
        """The evidence and what an alarm needs, as logarithms, in which it grows evenly."""
        needed = self._needed(self.ranked)
        return math.log1p(self.level * needed), math.log1p(needed)

    def take(self, rows: Rows, phase: int = 0) -> None:
        """Weigh requests of one phase, in order."""
        for start in range(0, len(rows), _BLOCK):
            part = rows[start : start + _BLOCK]
            if self._weigh(part, phase):
                self._admit(part, phase)

    def ranks(self, rows: Rows, phase: int) -> Rows:
        """The share of what each is ranked among that is as strange or stranger, a signal each; NaN where unknown."""
        ranked = self._ranked.get(phase)
        if ranked is None:
            return np.full(rows.shape, np.nan)
        _, upto, among = ranked.places(rows)
        return np.asarray(np.where((among > 0) & np.isfinite(rows), (upto + 1) / (among + 1), np.nan))

    def without(self, rows: Iterable[tuple[int, Rows]]) -> float:
        """The highest level that other rows, by phase, would reach from nothing, ranked as now."""
        sums, highest = np.zeros(len(self._sums)), 0.0
        for phase, part in rows:
            for start in range(0, len(part), _BLOCK):
                _, course = self._course(sums, part[start : start + _BLOCK], phase)
                sums = course[-1]
                highest = max(highest, float((course @ self._weights).max()))
        return highest / self._needed(self.ranked)

    def shares(self) -> list[Share]:
        """What the level is made of, largest part first."""
        won = self._sums * self._weights
        total = float(won.sum())
        if total <= 0:
            return []
        parts = np.bincount(self._signal, won, len(self.signals)) / total
        leading = {int(self._signal[i]): i for i in np.argsort(won)}
        order = np.argsort(-parts, kind="stable")
        return [Share(self.signals[i], float(parts[i]), int(self._onset[leading[int(i)]])) for i in order]

    def _weigh(self, rows: Rows, phase: int) -> bool:
        """Add a block to the evidence; whether its rows may be ranked among later."""
        pays, sums = self._course(self._sums, rows, phase)
        needed = self._needed(self._size(phase))
        levels = sums @ self._weights / needed
        self._date(pays)
        self.seen += len(rows)
        self._sums = np.minimum(sums[-1], _CAP * needed / self._weights)
        self.level = min(_CAP, float(levels[-1]))
        if self.alarm and self.level < _OVER:
            self.alarm = False
            self._sums = np.zeros(len(self._sums))
            self._forget(self._began, self.seen - len(rows))
            return False
        if not self.alarm and self.seen >= _LEAST_SEEN and float(levels.max()) >= 1:
            self.alarm = True
            self._began = min((share.since for share in self.shares()[:1]), default=self.seen)
        return True

    def _course(self, sums: Floats, rows: Rows, phase: int) -> tuple[Floats, Floats]:
        """A block's payoffs, and the bets' sums after each of its rows."""
        pays = self._payoffs(rows, phase)
        product = np.cumprod(pays * self._kept, 0)
        before = np.vstack([np.ones(len(sums)), product[:-1]])
        return pays, product * (sums + np.cumsum(np.where(np.abs(pays - 1.0) > _NOTHING, self._step, 0.0) / before, 0))

    def _payoffs(self, rows: Rows, phase: int) -> Floats:
        """Shape [requests, bets]; 1 where nothing is known."""
        ranked = self._ranked.get(phase)
        if ranked is None:
            return np.ones((len(rows), len(self._signal)))
        above, upto, among = (part[:, self._signal] for part in ranked.places(rows))
        known = np.isfinite(rows)[:, self._signal] & (among > 0)
        pays = payoffs(above, upto, among, self._shares, self._powers)
        pays[:, self._tilts] = self._tilted(rows, ranked, among)
        return np.where(known, pays, 1.0)

    def _tilted(self, rows: Rows, ranked: Ranked, among: Floats) -> Floats:
        """Shape [requests, tilts]."""
        signals, powers = self._signal[self._tilts], self._powers[self._tilts]
        totals = np.asarray([ranked.total(int(i), float(power)) for i, power in zip(signals, powers, strict=True)])
        return tilted(np.nan_to_num(rows[:, signals]), totals, among[:, self._tilts], self._shares[self._tilts], powers)

    def _date(self, pays: Floats) -> None:
        """Follow each bet's best onset: where its running product was last at its lowest (Page's CUSUM)."""
        walk = np.vstack([self._rise, np.log(pays)]).cumsum(0)
        lowest = np.minimum(np.minimum.accumulate(walk, 0), 0.0)
        fresh = walk <= lowest
        at = np.where(fresh.any(0), len(walk) - 1 - np.argmax(fresh[::-1], 0), -1)
        self._onset = np.where(at >= 0, self.seen + at, self._onset)
        self._rise = walk[-1] - lowest[-1]

    def _forget(self, since: int, upto: int) -> None:
        """Of the requests that wait, up to `upto`, those that came after `since` may have been drift."""
        while self._waiting and upto > since:
            gone = len(self._waiting.pop()[1])
            self._waits -= gone
            upto -= gone

    def _admit(self, rows: Rows, phase: int) -> None:
        self._waiting.append((phase, rows))
        self._waits += len(rows)
        if self.alarm or self.level >= _HARMLESS or self._waits < _LAG + _TAKEN_IN:
            return
        harmless: dict[int, list[Rows]] = {}
        while self._waits - len(self._waiting[0][1]) >= _LAG:
            since, part = self._waiting.popleft()
            self._waits -= len(part)
            harmless.setdefault(since, []).append(part)
        for since, parts in harmless.items():
            ranked = self._ranked.get(since)
            if ranked is None:
                self._ranked[since] = Ranked(np.vstack(parts))
            elif ranked.size < _MOST_RANKED:
                ranked.add(np.vstack(parts))

    def _size(self, phase: int) -> int:
        ranked = self._ranked.get(phase)
        return ranked.size if ranked is not None else 0

    def _needed(self, ranked: int) -> float:
        return self._needs.needed(self._every, self._step, ranked)
