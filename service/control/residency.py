"""The right adapters on every engine: what should be there against what each engine reports, every tick."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.core.errors import BadAdapter, TrimtabError
from service.core.plan import desired_adapters, load_order, removable
from service.core.records import Adapter, Alias, Cycle, EngineView, Job, Lease
from service.drivers.adapter_files import adapter_digest
from service.drivers.failpoints import Failpoint, reach
from service.ports import Blobs, Clock, Engine, Registry
from service.processes import note


@dataclass(frozen=True, slots=True)
class Residency:
    """What one pass found: every engine's view after loading and unloading."""

    engines: tuple[EngineView, ...]

    def everywhere(self, adapter: str) -> bool:
        """Whether every ready engine holds `adapter`; False without a ready engine."""
        ready = [engine for engine in self.engines if engine.ready]
        return bool(ready) and all(adapter in engine.resident for engine in ready)


class ResidencyKeeper:
    """Loads what an engine lacks and unloads, after a drain, what nobody wants. Keeps no state that matters.

    An adapter leaves in two ticks: the first says in the store that the engine no longer holds it, the second unloads
    it, unless somebody has come to want it meanwhile. Who wants one first and then looks whether engines hold it
    can so never be told yes about one that is about to go.
    """

    def __init__(
        self, registry: Registry, blobs: Blobs, engines: Sequence[Engine], clock: Clock, *, drain_s: float, warm: bool
    ) -> None:
        self._registry = registry
        self._blobs = blobs
        self._engines = engines
        self._clock = clock
        self._drain_s = drain_s
        self._warm = warm
        self._undesired_since: dict[str, float] = {}
        self._leaving: dict[str, frozenset[str]] = {}
        self._paths: dict[str, str] = {}
        self._told: dict[str, str] = {}

    async def converge(
        self, aliases: Sequence[Alias], cycles: Sequence[Cycle], lease: Lease, jobs: Sequence[Job] = ()
    ) -> Residency:
        """One pass over all engines; what fails on one is told once and tried again at the next tick."""
        desired = desired_adapters(aliases, cycles, jobs)
        views = await asyncio.gather(*(self._converge_engine(engine, desired, aliases) for engine in self._engines))
        self._forget(desired, views)
        reach(Failpoint.ENGINES_SEEN)
        await self._registry.report_engines(views, fence=lease)
        return Residency(tuple(views))

    async def _converge_engine(self, engine: Engine, desired: frozenset[str], aliases: Sequence[Alias]) -> EngineView:
        now = self._clock.now()
        if not await engine.ready():
            return EngineView(engine.url, False, frozenset(), now, "")
        try:
            base, resident = await engine.models()
            for name in load_order(desired - resident, aliases):
                if await self._load(engine, name):
                    resident |= {name}
            leaving = removable(resident, desired, self._undesired_since, now=now, drain_s=self._drain_s)
            for name in leaving & self._leaving.get(engine.url, frozenset()):
                await engine.unload(name)
                reach(Failpoint.ENGINE_UNLOADED)
            self._leaving[engine.url] = leaving
        except TrimtabError as error:
            self._tell(engine.url, error.message)
            return EngineView(engine.url, False, frozenset(), now, "")
        return EngineView(engine.url, True, resident - leaving, now, base)

    async def _load(self, engine: Engine, name: str) -> bool:
        try:
            await engine.load(name, await self._verified_path(await self._registry.adapter(name)))
            reach(Failpoint.ENGINE_LOADED)
            if self._warm:
                await engine.warm(name)
            reach(Failpoint.ENGINE_WARMED)
        except TrimtabError as error:
            self._paths.pop(name, None)  # The folder may be gone: it is fetched and verified anew.
            self._tell(f"{engine.url} {name}", error.message)
            return False
        self._told.pop(f"{engine.url} {name}", None)
        return True

    async def _verified_path(self, adapter: Adapter) -> str:
        """The adapter's folder, its digest checked once by this process before any engine sees it."""
        if adapter.name not in self._paths:
            folder = await self._blobs.local(adapter.name)
            digest = await asyncio.to_thread(_digest_of, folder)
            if digest != adapter.digest:
                raise BadAdapter(f"The files of {adapter.name} have changed (SHA-256 {digest}); they are not loaded.")
            self._paths[adapter.name] = folder
        return self._paths[adapter.name]

    def _forget(self, desired: frozenset[str], views: Sequence[EngineView]) -> None:
        resident = frozenset[str]().union(*(view.resident for view in views), *self._leaving.values())
        now = self._clock.now()
        unwanted = resident - desired
        self._undesired_since = {name: self._undesired_since.get(name, now) for name in unwanted}

    def _tell(self, subject: str, message: str) -> None:
        if self._told.get(subject) != message:
            self._told[subject] = message
            note(f"{subject}: {message}")


def _digest_of(folder: str) -> str:
    return adapter_digest({f.name: f.read_bytes() for f in Path(folder).iterdir() if f.is_file()})
