"""The loop: observe → core.plan → execute → record, under a fenced lease. Any tick may be the last."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import traceback

from service.control.evidence import plan_policy
from service.control.execute import Executor
from service.control.gauges import Gauges
from service.control.launcher import Launcher
from service.control.observe import observe
from service.control.residency import Residency, ResidencyKeeper
from service.control.retention import Retention
from service.control.starts import jobs_of
from service.control.sweeper import Sweeper
from service.control.webhook import Webhook
from service.core.errors import Conflict, StaleWrite, TrimtabError
from service.core.plan import plan
from service.core.records import Alias, Lease
from service.drivers.failpoints import Failpoint, reach
from service.ports import Clock, Store
from service.processes import note
from service.settings import Settings

LEASE = "controller"

SWEEP_EVERY_S = 2.0


class Reconciler:
    """Carries every alias one step further at each tick, while it holds the lease."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        residency: ResidencyKeeper,
        launcher: Launcher,
        gauges: Gauges,
        clock: Clock,
        sweeper: Sweeper | None = None,
        retention: Retention | None = None,
        webhook: Webhook | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._residency = residency
        self._launcher = launcher
        self._gauges = gauges
        self._clock = clock
        self._sweeper = sweeper
        self._retention = retention
        self._executor = Executor(store, settings, launcher, gauges, clock, webhook)
        self._swept_at = -math.inf
        self._holder = secrets.token_hex(8)

    async def run(self, stop: asyncio.Event) -> None:
        """Tick until `stop`; a failed tick is told and the next one starts from the store again."""
        while not stop.is_set():
            try:
                with self._gauges.tick():
                    await self.tick()
            except TrimtabError as error:
                note(f"controller: {error.message}")
            except Exception:
                note(f"controller: a tick failed\n{traceback.format_exc()}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._settings.controller.interval_s)
        await self._launcher.stop()

    async def tick(self) -> bool:
        """One pass over engines and aliases; False when another controller leads."""
        lease = await self._store.acquire(
            LEASE, self._holder, ttl_s=self._settings.controller.lease_s, now=self._clock.now()
        )
        self._gauges.leader(lease is not None)
        if lease is None:
            return False
        reach(Failpoint.LEASE_TAKEN)
        aliases = await self._store.aliases()
        cycles = await self._store.cycles(open_only=True)
        residency = await self._residency.converge(aliases, cycles, lease, await jobs_of(self._store, cycles))
        self._gauges.engines(residency.engines)
        opened = {cycle.alias: cycle.opened_at for cycle in cycles}
        for alias in sorted(aliases, key=lambda alias: opened.get(alias.name, math.inf)):  # first come, first trained
            await self._step(alias, residency, lease)
        await self._sweep()
        return True

    async def _step(self, alias: Alias, residency: Residency, lease: Lease) -> None:
        seen = await observe(self._store, self._settings, alias, residency, self._clock.now())
        await self._gauges.alias(seen)
        for action in plan(seen, plan_policy(self._settings), self._clock.now()):
            try:
                seen = await self._executor.execute(seen, action, lease)
                reach(Failpoint.ACTION_DONE)
            except StaleWrite:
                raise
            except Conflict as error:
                note(f"{alias.name}: {error.message}")
                return

    async def _sweep(self) -> None:
        now = self._clock.now()
        if self._sweeper is not None and now - self._swept_at >= SWEEP_EVERY_S:
            self._swept_at = now
            await self._sweeper.sweep()
        if self._retention is not None:
            self._gauges.expired(await self._retention.expire())
