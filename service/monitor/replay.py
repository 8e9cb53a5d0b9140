"""Today's settings over stored traffic: when they would have fired, and why. The checks are the worker's own."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

from service.core.audit import SERVING_KINDS, servings
from service.core.drift import Verdict
from service.core.records import Alias, DriftCheck
from service.monitor.check import Checker
from service.monitor.declared import Declared
from service.monitor.embedders import Embedder
from service.monitor.reference import utc_time
from service.monitor.rounds import Rounds
from service.monitor.surfaces import Descriptors
from service.monitor.views import DriftStore, Recorded
from service.monitor.worker import Watch
from service.ports import Store
from service.settings import DriftSettings, Settings

_READ = 1000
"""Captures read at a time."""

_LOOKS_A_WINDOW = 20
"""The worker looks every few seconds; between looks so far apart its verdict hardly changes."""


@dataclass(slots=True)
class Alarm:
    """One drift: from its first DRIFTED check to the first that is not. Times are Unix seconds.

    `reasons` are the first check's, and what it is about as soon as a check could tell. `retrain_at`: when it first
    would have asked for retraining; None where it never did.
    """

    at: float
    slice: str | None
    since: float | None
    reasons: Sequence[str]
    detectors: Sequence[str]
    reference: str | None
    retrain_at: float | None = None
    ended_at: float | None = None


@dataclass(slots=True)
class Replayed:
    """What the replay found; `requests` are those stepped over, `every` the declared number between false alarms."""

    alias: str
    requests: int = 0
    every: int = 0
    checks: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    alarms: list[Alarm] = field(default_factory=list)


class _Told(Recorded):
    """A store of the past that notes when a verdict turns."""

    def __init__(self, store: Store, found: Replayed) -> None:
        super().__init__(store)
        self._found = found
        self._lasting: dict[str | None, Alarm] = {}
        self._untold: dict[str | None, bool] = {}

    async def add_drift_check(self, check: DriftCheck) -> None:
        await super().add_drift_check(check)
        found = self._found
        found.checks += 1
        found.verdicts[check.verdict] = found.verdicts.get(check.verdict, 0) + 1
        alarm = self._lasting.get(check.slice)
        if check.verdict != Verdict.DRIFTED:
            if alarm is not None:
                alarm.ended_at = check.at
                del self._lasting[check.slice]
            return
        if alarm is None:
            detectors = [str(entry["detector"]) for entry in check.scores if entry.get("alarm")]
            alarm = Alarm(check.at, check.slice, check.since, list(check.reasons), detectors, check.reference)
            self._lasting[check.slice] = alarm
            found.alarms.append(alarm)
            self._untold[check.slice] = not check.topics
        elif check.topics and self._untold[check.slice]:
            alarm.reasons = [check.reasons[0], *alarm.reasons]
            self._untold[check.slice] = False
        if check.retrain and alarm.retrain_at is None:
            alarm.retrain_at = check.at


@dataclass(slots=True)
class _PastClock:
    """The time of the replayed moment."""

    store: Recorded

    def now(self) -> float:
        return self.store.moment

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


async def replay(
    store: Store, settings: Settings, embedder: Embedder | None, name: str, *, since: float = 0.0,
    until: float = math.inf, progress: Callable[[Replayed, float], None] | None = None,
) -> Replayed:  # fmt: skip
    """Judge the stored traffic of an alias with since < at ≤ until, in order of time, as the worker would have.

    The reference is what it would have been then, promotions and rollbacks included. `progress` hears how far it is.

    Raises:
        NotFound: there is no such alias.
        ConfigError: a descriptor that the settings list cannot be used.
    """
    alias = await store.alias(name)
    begun = [one.since for one in servings((await store.events(name, kinds=SERVING_KINDS, limit=None))[::-1])]
    found = Replayed(name)
    past = _Told(store, found)
    clock = _PastClock(past)
    descriptors = Descriptors(settings.drift.descriptors)

    def watch_of(seen: DriftStore, own: Settings) -> Watch:
        return Watch(seen, own, clock, Checker(own.drift, None, embedder, descriptors))

    declared = Declared(settings.drift, store, clock)
    rounds = Rounds(past, settings, watch_of, declared)
    with threadpool_limits(settings.drift.threads):
        async for moment in _moments(store, name, settings.drift, since, until, found):
            past.moment = moment
            await rounds.check(_as_then(alias, begun, moment))
            if progress is not None:
                progress(found, moment)
        found.every = await declared.every(name)
    return found


def _as_then(alias: Alias, begun: Sequence[float], moment: float) -> Alias:
    """Before the first that the audit log knows of, the reference is the oldest traffic."""
    return replace(alias, reference_since=max((at for at in begun if at <= moment), default=0.0))


async def _moments(
    store: Store, alias: str, drift: DriftSettings, since: float, until: float, found: Replayed
) -> AsyncIterator[float]:
    """When the worker would have looked, but for a few requests: not more often than each `drift.interval_s`."""
    fresh, looked_at, at = 0, -math.inf, since
    step = max(1, drift.current_size // _LOOKS_A_WINDOW)
    while rows := await store.window(alias, since=at, until=until if until < math.inf else None, limit=_READ):
        for row in rows:
            at = row.capture.at
            found.requests += 1
            fresh += 1
            if fresh >= step and at - looked_at >= drift.interval_s:
                fresh, looked_at = 0, at
                yield at
    if fresh:
        yield at


def tell(found: Replayed, *, as_json: bool) -> None:
    """Print it, as JSON or for a person."""
    if as_json:
        sys.stdout.write(json.dumps(asdict(found), indent=2) + "\n")
        return
    verdicts = ", ".join(f"{n} {verdict}" for verdict, n in sorted(found.verdicts.items()))
    lines = [
        f"{found.alias}: {found.requests} requests, {found.checks} checks ({verdicts or 'none'}).",
        f"It would have fired {len(found.alarms)} times; about {found.requests / found.every:.1f} false "
        f"alarms are expected in as many requests (one in {found.every} is declared).",
    ]
    for alarm in found.alarms:
        ended = "to the end" if alarm.ended_at is None else f"until {utc_time(alarm.ended_at)}"
        slice_ = f", slice {alarm.slice}" if alarm.slice is not None else ""
        began = f", begun about {utc_time(alarm.since)}" if alarm.since is not None else ""
        lines += ["", f"{utc_time(alarm.at)} {ended}{slice_}{began} ({', '.join(alarm.detectors)})"]
        lines += [f"  - {reason}" for reason in alarm.reasons]
        asks = "It would not have asked for retraining."
        if alarm.retrain_at is not None:
            asks = f"It would have asked for retraining at {utc_time(alarm.retrain_at)}."
        lines.append(f"  {asks}")
    sys.stdout.write("\n".join(lines) + "\n")
