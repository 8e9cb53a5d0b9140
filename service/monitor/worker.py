"""The drift worker: every interval it reads each alias's windows, has them judged, and stores the verdicts."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

from service.core.errors import TrimtabError
from service.core.records import Alias, DriftCheck, Labelled
from service.core.window import Sizes, Windows, choose_windows, is_due, reference_end
from service.monitor.check import Checker, Memory
from service.monitor.embedders import build_embedder
from service.monitor.report import Reports
from service.monitor.stream import REPLAYED
from service.ports import Clock, Store
from service.settings import Settings

_GRACE_S = 10.0
"""How late a capture may reach the store, or how far gateways' clocks may differ, and still be weighed in its turn."""

_LATE_LABELS = 1000
"""A label counts as long as its request is among so many newest labelled ones."""

_log = logging.getLogger(__name__)


async def run_monitor(store: Store, settings: Settings, clock: Clock, stop: asyncio.Event) -> None:
    """Check every alias each `drift.interval_s`, until `stop`; a store that is away is tried again."""
    drift = settings.drift
    if not drift.enabled:
        _log.info("Drift detection is off (drift.enabled).")
        await stop.wait()
        return
    embedder = await asyncio.to_thread(build_embedder, settings)
    reports = Reports(settings.state_dir / "reports", keep=drift.keep_reports)
    watch = Watch(store, settings, clock, Checker(drift, reports, embedder))
    with threadpool_limits(drift.threads):
        while not stop.is_set():
            await watch.check_all()
            await _pause(clock, stop, drift.interval_s)


class Watch:
    """What the worker knows of the aliases between two rounds."""

    def __init__(self, store: Store, settings: Settings, clock: Clock, checker: Checker) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._checker = checker
        self._wanted = Sizes(settings.drift.reference_size, settings.drift.current_size)
        self._memories: defaultdict[str, Memory] = defaultdict(Memory)
        self._seen: dict[str, Mapping[str, bool]] = {}
        self._weighed: dict[str, tuple[float, float]] = {}
        """Where the reference ended, and upto when requests after it were weighed."""

    async def check_all(self) -> None:
        """One round; an alias that fails keeps neither the others nor the next round from their checks."""
        try:
            aliases = await self._store.aliases()
        except TrimtabError as error:
            _log.warning("The store is away; trying again in %g s: %s", self._settings.drift.interval_s, error.message)
            return
        for alias in aliases:
            try:
                await self.check_alias(alias)
            except TrimtabError as error:
                _log.warning("Alias %r was not checked this time: %s", alias.name, error.message)
            except Exception:
                # A fault in one check must not end the process: it would start again into the same fault.
                _log.exception("Alias %r could not be checked.", alias.name)

    async def check_alias(self, alias: Alias) -> DriftCheck | None:
        """Judge the newest window and store the verdict; None while too little is new since the last check."""
        windows = await self._windows(alias)
        known = {
            row.capture.request_id: row.feedback is not None for row in (windows.current or windows.reference)
        }  # fmt: skip
        before = self._seen.get(alias.name, {})
        fresh = sum(before.get(request_id) != labelled for request_id, labelled in known.items())
        full = windows.sizes.lack(self._wanted) is None
        turned = await self._observe(alias, windows)
        if not turned and (not fresh or (full and not is_due(fresh, self._wanted.current))):
            return None
        check = await asyncio.to_thread(
            self._checker.check, alias.name, windows, self._settings.alias(alias.name), self._memories[alias.name],
            fresh=fresh, now=self._clock.now(),
        )  # fmt: skip
        await self._store.add_drift_check(check)
        self._seen[alias.name] = known
        return check

    async def _observe(self, alias: Alias, windows: Windows) -> bool:
        """Have every request and label since the last round weighed; whether an alarm began or ended."""
        end = reference_end(windows.reference, self._wanted)
        if end is None:
            return False
        start, upto = self._weighed.get(alias.name, (end, end))
        since = max(end, upto - _GRACE_S) if start == end else end
        rows = [
            *await self._store.window(alias.name, since=since, limit=REPLAYED, newest=True),
            *await self._store.window(alias.name, since=end, limit=_LATE_LABELS, newest=True, labelled_only=True),
        ]
        turned = await asyncio.to_thread(
            self._checker.observe, windows, rows, self._settings.alias(alias.name), self._memories[alias.name]
        )
        newest = max((row.capture.at for row in rows), default=since)
        self._weighed[alias.name] = (end, min(newest, self._clock.now()))
        return turned

    async def _windows(self, alias: Alias) -> Windows:
        wanted = self._wanted
        oldest = await self._store.window(alias.name, since=alias.reference_since, limit=wanted.reference)
        end = reference_end(oldest, wanted)
        newest: Sequence[Labelled] = ()
        if end is not None:
            newest = await self._store.window(alias.name, since=end, limit=wanted.current, newest=True)
        return choose_windows(oldest, newest, wanted)


async def _pause(clock: Clock, stop: asyncio.Event, seconds: float) -> None:
    """Return after `seconds`, or at once when `stop` is set."""
    waiting = {asyncio.ensure_future(clock.sleep(seconds)), asyncio.ensure_future(stop.wait())}
    _, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
