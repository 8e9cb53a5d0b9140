"""An adapter that nobody wants leaves an engine in two ticks: out of the store's view first, then out of the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from service.control.residency import ResidencyKeeper
from service.core.errors import NotFound
from service.core.records import Adapter, Alias, EngineView, Lease

OLD, NEW = "support@111111111111", "support@222222222222"
LEASE = Lease("controller", "me", 1, 1e9)
WANTED, UNWANTED = Alias("support", champion=NEW, previous=OLD), Alias("support", champion=NEW)


@dataclass
class Engine:
    url: str = "http://engine"
    resident: set[str] = field(default_factory=lambda: {OLD, NEW})

    async def ready(self) -> bool:
        return True

    async def models(self) -> tuple[str, frozenset[str]]:
        return "base-model", frozenset(self.resident)

    async def load(self, name: str, path: str) -> None:
        self.resident.add(name)

    async def unload(self, name: str) -> None:
        self.resident.discard(name)

    async def warm(self, model: str) -> None: ...


@dataclass
class Clock:
    time: float = 0.0

    def now(self) -> float:
        return self.time


class Registry:
    """What the store would know of the engines; no adapter can be loaded again from it."""

    def __init__(self) -> None:
        self.views: Sequence[EngineView] = ()

    async def report_engines(self, engines: Sequence[EngineView], *, fence: Lease | None = None) -> None:
        self.views = engines

    async def adapter(self, name: str) -> Adapter:
        raise NotFound(f"{name} is not here.")


class World:
    def __init__(self) -> None:
        self.engine, self.clock, self.registry = Engine(), Clock(), Registry()
        self.keeper = ResidencyKeeper(
            self.registry, None, [self.engine], self.clock, drain_s=30.0, warm=False  # type: ignore[arg-type]
        )  # fmt: skip

    async def tick(self, alias: Alias, seconds: float = 1.0) -> frozenset[str]:
        """What the store says is resident after one pass."""
        self.clock.time += seconds
        await self.keeper.converge([alias], [], LEASE)
        return self.registry.views[0].resident


async def test_what_nobody_wants_is_withdrawn_after_the_drain_and_unloaded_a_tick_later() -> None:
    world = World()
    assert await world.tick(UNWANTED) == {OLD, NEW}
    assert await world.tick(UNWANTED, 29.0) == {OLD, NEW}
    assert await world.tick(UNWANTED) == {NEW}
    assert world.engine.resident == {OLD, NEW}
    assert await world.tick(UNWANTED) == {NEW}
    assert world.engine.resident == {NEW}


async def test_what_is_wanted_again_between_the_two_ticks_stays() -> None:
    world = World()
    await world.tick(UNWANTED)
    assert await world.tick(UNWANTED, 30.0) == {NEW}
    assert await world.tick(WANTED) == {OLD, NEW}
    assert world.engine.resident == {OLD, NEW}
    assert await world.tick(UNWANTED) == {OLD, NEW}, "the drain begins anew"
