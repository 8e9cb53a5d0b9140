"""The drift worker: every interval it reads each alias's windows, has them judged, and stores the verdicts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

from service.core.errors import TrimtabError
from service.core.records import Alias, DriftCheck
from service.core.window import Sizes, Windows, is_due, reference_end
from service.monitor.check import Checker, Memory
from service.monitor.declared import Declared
from service.monitor.embedders import build_embedder
from service.monitor.reference import References
from service.monitor.report import Reports
from service.monitor.rounds import Rounds
from service.monitor.stream import REPLAYED
from service.monitor.surfaces import Descriptors, presets
from service.monitor.views import DriftStore
from service.monitor.workspace import Alarms
from service.ports import Clock, Store
from service.settings import DriftSettings, Settings

_GRACE_S = 10.0
"""How late a capture may reach the store, or how far gateways' clocks may differ, and still be weighed in its turn."""

_LATE_LABELS = 1000
"""A label counts as long as its request is among so many newest labelled ones."""

_log = logging.getLogger(__name__)


async def run_monitor(store: Store, settings: Settings, clock: Clock, stop: asyncio.Event) -> None:
    """Check every alias each `drift.interval_s`, until `stop`; a store that is away is tried again.

    Raises:
        ConfigError: a descriptor or a preset that the settings list cannot be used.
    """
    drift = settings.drift
    if not drift.enabled:
        _log.info("Drift detection is off (drift.enabled).")
        await stop.wait()
        return
    embedder = await asyncio.to_thread(build_embedder, settings)
    descriptors = Descriptors(drift.descriptors)
    alarms = Alarms(settings.state_dir / "evidently", keep=drift.keep_reports)
    reports = Reports(
        settings.state_dir / "reports", keep=drift.keep_reports, presets=presets(drift.presets), alarms=alarms
    )

    def watch_of(seen: DriftStore, own: Settings) -> Watch:
        return Watch(seen, own, clock, Checker(own.drift, reports, embedder, descriptors))

    rounds = Rounds(store, settings, watch_of, Declared(drift, store, clock))
    with threadpool_limits(drift.threads):
        while not stop.is_set():
            await _check_all(store, rounds, drift)
            await _pause(clock, stop, drift.interval_s)


class Watch:
    """What the worker knows of the aliases between two rounds."""

    def __init__(self, store: DriftStore, settings: Settings, clock: Clock, checker: Checker) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._checker = checker
        self._wanted = Sizes(settings.drift.reference_size, settings.drift.current_size)
        self._references = References(store, settings.drift.reference, self._wanted)
        self._memories: dict[str, Memory] = {}
        self._seen: dict[str, Mapping[str, bool]] = {}
        self._weighed: dict[str, tuple[float, float]] = {}
        """Where the reference ended, and upto when requests after it were weighed."""

    async def check_alias(self, alias: Alias) -> DriftCheck | None:
        """Judge the newest window and store the verdict; None while too little is new since the last check."""
        windows = await self._references.windows(alias)
        known = {
            row.capture.request_id: row.feedback is not None for row in (windows.current or windows.reference)
        }  # fmt: skip
        before = self._seen.get(alias.name, {})
        fresh = sum(before.get(request_id) != labelled for request_id, labelled in known.items())
        full = windows.sizes.lack(self._wanted) is None
        if alias.name not in self._memories:
            self._memories[alias.name] = Memory(onset=await self._references.onset(alias))
        turned = await self._observe(alias, windows)
        if not turned and (not fresh or (full and not is_due(fresh, self._wanted.current))):
            return None
        check = await asyncio.to_thread(
            self._checker.check, alias.name, windows, self._settings.alias(alias.name), self._memories[alias.name],
            fresh=fresh, now=self._clock.now(),
        )  # fmt: skip
        check = await self._references.stamped(alias, windows, check)
        await self._store.add_drift_check(check)
        self._seen[alias.name] = known
        await self._references.roll(alias, check, now=check.at)
        return check

    async def _observe(self, alias: Alias, windows: Windows) -> bool:
        """Have every request and label since the last round weighed; whether an alarm began or ended."""
        end = reference_end(windows.reference, self._wanted)
        if end is None:
            return False
        start, upto = self._weighed.get(alias.name, (end, end))
        # As in the current window: what an earlier champion answered after a pinned reference says nothing of this one.
        first = max(end, alias.reference_since)
        since = max(first, upto - _GRACE_S) if start == end else first
        rows = [
            *await self._store.window(alias.name, since=since, limit=REPLAYED, newest=True),
            *await self._store.window(alias.name, since=first, limit=_LATE_LABELS, newest=True, labelled_only=True),
        ]
        turned = await asyncio.to_thread(
            self._checker.observe, windows, rows, self._settings.alias(alias.name), self._memories[alias.name]
        )
        newest = max((row.capture.at for row in rows), default=since)
        self._weighed[alias.name] = (end, min(newest, self._clock.now()))
        return turned


async def _check_all(store: Store, rounds: Rounds, drift: DriftSettings) -> None:
    """One round over every alias."""
    try:
        aliases = await store.aliases()
    except TrimtabError as error:
        _log.warning("The store is away; trying again in %g s: %s", drift.interval_s, error.message)
        return
    for alias in aliases:
        await rounds.check(alias)


async def _pause(clock: Clock, stop: asyncio.Event, seconds: float) -> None:
    """Return after `seconds`, or at once when `stop` is set."""
    waiting = {asyncio.ensure_future(clock.sleep(seconds)), asyncio.ensure_future(stop.wait())}
    _, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
