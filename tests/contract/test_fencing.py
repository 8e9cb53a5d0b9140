"""The store refuses every write of a controller that was overtaken, whatever the clocks say."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from service import ports
from service.control.gauges import Gauges
from service.control.reconciler import LEASE, Reconciler
from service.control.residency import ResidencyKeeper
from service.core.cycle import CycleState, Trigger
from service.core.errors import StaleWrite
from service.core.records import Adapter, Cycle, EngineView, Job, JobStatus, Lease
from service.drivers.schema import metadata
from service.drivers.store import SqlStore
from service.settings import load_settings
from service.telemetry import ControllerMetrics
from tests.service.control.reconciling import FILES, NEW, HandClock, World

pytestmark = pytest.mark.long

HOUR = 3600.0
UNUSED = "support@" + "d" * 12

Dump = Callable[[], list[list[str]]]

READS = {
    "alias", "aliases", "adapter", "adapters", "routing", "window", "tags", "paired", "beside", "failed", "capture",
    "count", "cycle", "cycles", "events", "verify_audit", "drift_checks", "drift_references", "job", "jobs", "keys",
    "secret", "ping", "close", "erased", "imported", "imported_row",
}  # fmt: skip
OTHERS = {
    "acquire": "takes the lease itself",
    "add_alias": "of the settings, by every process that starts; never changes an alias that is there",
    "add_adapter": "by jobs and people; immutable",
    "add_captures": "by gateways",
    "add_shadow_replies": "by gateways",
    "add_feedback": "by gateways",
    "add_imported": "by people",
    "add_drift_check": "by the drift worker",
    "add_drift_reference": "by the drift worker, and by people who pin one",
    "add_key": "by people",
    "erase": "by people",
    "expire": "by age and number alone: whoever does it twice changes nothing",
    "expire_strays": "as expire",
    "tend_partitions": "by the clock alone: whoever does it twice changes nothing",
    "revoke_key": "by people",
    "claim": "by jobs: the holder is the fence",
    "report": "by jobs: the holder is the fence",
    "finish": "by jobs: the holder is the fence",
    "fail": "by jobs: the holder is the fence",
    "cancel": "by people",
}
"""Writes that no controller makes, and so need no fence."""


def methods() -> dict[str, inspect.Signature]:
    """Everything that a store can be asked, by name."""
    rooms = [kind for kind in ports.Store.__mro__ if kind.__module__ == ports.__name__]
    found = [(name, one) for room in rooms for name, one in vars(room).items() if inspect.iscoroutinefunction(one)]
    return {name: inspect.signature(one) for name, one in found}


FENCED = {name for name, signature in methods().items() if "fence" in signature.parameters}


def calls(cycle: Cycle, fence: Lease | None) -> dict[str, Callable[[SqlStore], Awaitable[Any]]]:
    """One call of every fenced write; each, also after those before it, changes something."""
    view = EngineView("http://engine", True, frozenset(), 9.0, "base")
    job = Job("j9", cycle.id, "support", JobStatus.QUEUED, 9.0, 9.0)
    return {
        "set_candidate": lambda s: s.set_candidate("support", NEW, mirror_ratio=0.5, now=9.0, fence=fence),
        "set_health": lambda s: s.set_health("support", failures=2, latched=True, now=9.0, fence=fence),
        "report_engines": lambda s: s.report_engines([view], fence=fence),
        "open_cycle": lambda s: s.open_cycle(
            "c9", "billing", Trigger.DRIFT, reason="x", evidence={}, now=9.0, actor="x", fence=fence
        ),
        "note_evidence": lambda s: s.note_evidence(cycle, {"x": 1}, now=9.0, fence=fence),
        "add_event": lambda s: s.add_event("x", actor="x", message="x", now=9.0, fence=fence),
        "enqueue": lambda s: s.enqueue(job, fence=fence),
        "requeue": lambda s: s.requeue(job, reason="x", actor="x", now=9.5, fence=fence),
        "advance": lambda s: s.advance(cycle, CycleState.TRAINING, reason="x", now=9.0, fence=fence),
        "remove_adapter": lambda s: s.remove_adapter(UNUSED, actor="x", reason="x", now=9.0, fence=fence),
        "promote": lambda s: s.promote("support", NEW, actor="x", reason="x", now=9.0, fence=fence),
        "rollback": lambda s: s.rollback("support", actor="x", reason="x", now=9.0, fence=fence),
    }


async def set_up(store: SqlStore) -> Cycle:
    await store.add_alias("support", now=1.0)
    await store.add_alias("billing", now=1.0)
    await store.add_adapter(Adapter(NEW, "support", "b" * 64, "c" * 64, 16, 7, 2.0))
    await store.add_adapter(Adapter(UNUSED, "support", "d" * 64, "c" * 64, 16, 7, 2.0))
    await store.set_candidate("support", NEW, mirror_ratio=0.1, now=2.0)
    return await store.open_cycle("c1", "support", Trigger.DRIFT, reason="x", evidence={}, now=3.0, actor="x")


@pytest.fixture
def dump(store_url: str) -> Iterator[Dump]:
    """Reads every row of every table but the leases."""
    engine = sa.create_engine(store_url.replace("+aiosqlite", ""))
    tables = [table for table in metadata.sorted_tables if table.name != "leases"]

    def read() -> list[list[str]]:
        with engine.connect() as connection:
            return [sorted(map(repr, connection.execute(sa.select(table)))) for table in tables]

    yield read
    engine.dispose()


def test_every_method_of_the_store_is_a_read_a_fenced_write_or_one_that_no_controller_makes() -> None:
    kinds = (READS, FENCED, set(OTHERS))
    assert sum(map(len, kinds)) == len(set().union(*kinds)), "a method is of two kinds"
    assert set(methods()) == set().union(*kinds)
    assert set(calls(Cycle("c", "a", CycleState.OPEN, Trigger.DRIFT, "", 0, 0, 0), None)) == FENCED


@pytest.mark.parametrize("skew", [-HOUR, HOUR])
async def test_a_woken_controller_writes_nothing(store: SqlStore, dump: Dump, skew: float) -> None:
    """It froze past its lease; another one took over, by a clock that is an hour off."""
    cycle = await set_up(store)
    stale = await store.acquire("controller", "one", ttl_s=10.0, now=100.0 + HOUR)
    assert stale is not None
    if skew < 0:
        assert await store.acquire("controller", "two", ttl_s=10.0, now=100.0) is None
    fresh = await store.acquire("controller", "two", ttl_s=10.0, now=110.0 + HOUR + skew)
    assert fresh is not None
    before = dump()
    for fence in (stale, Lease("never", "one", 1, 9e9), Lease("controller", "one", fresh.epoch + 1, 9e9)):
        for call in calls(cycle, fence).values():
            with pytest.raises(StaleWrite, match="another controller leads"):
                await call(store)
    assert dump() == before
    for name, call in calls(cycle, fresh).items():
        await call(store)
        assert dump() != before, name
        before = dump()


class Watched:
    """A controller's store: every write must carry a fence; `freeze_at` stops the controller before that write."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.writes: list[str] = []
        self.freeze_at: int | None = None
        self.frozen, self.woken = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name in READS or name == "acquire":
            return method
        assert name in FENCED, f"a controller must not call {name}"

        async def write(*args: Any, **kwargs: Any) -> Any:
            assert kwargs.get("fence") is not None, f"{name} was called without a fence"
            self.writes.append(name)
            if len(self.writes) - 1 == self.freeze_at:
                self.frozen.set()
                await self.woken.wait()
            return await method(*args, **kwargs)

        return write


class Rivals:
    """Two clocks an hour apart; controllers that freeze before a write, are overtaken by the other clock, and wake."""

    def __init__(self, world: World, dump: Dump) -> None:
        self.world = world
        self._dump = dump
        world.clock.time += HOUR
        self._clocks = (world.clock, HandClock())  # what the gateways write is dated by the first one
        self.leader, self.watched = self._controller()
        self.refused: list[str] = []

    async def until(self, reached: Callable[[], Awaitable[bool]]) -> None:
        """Let controllers freeze at their first write, at their second, … of a tick until the loop has got there."""
        for _ in range(10):
            freeze_at = 0
            while await self._overtaken(freeze_at):
                freeze_at += 1
                if await reached():
                    return
            if await reached():
                return
            self._pass_time(1.0)
        raise AssertionError(f"stuck: {await self.world.store.cycles('support', limit=1)}")

    async def state(self, wanted: CycleState) -> None:
        async def reached() -> bool:
            cycles = await self.world.store.cycles("support", limit=1)
            return bool(cycles) and cycles[0].state is wanted

        await self.until(reached)

    async def _overtaken(self, freeze_at: int) -> bool:
        """One tick of the leader; False when it made too few writes to freeze at that one."""
        self.watched.freeze_at = freeze_at
        ticking = asyncio.create_task(self.leader.tick())
        freezing = asyncio.create_task(self.watched.frozen.wait())
        await asyncio.wait({ticking, freezing}, return_when=asyncio.FIRST_COMPLETED)
        freezing.cancel()
        if ticking.done():
            assert await ticking
            self.watched.writes.clear()
            return False
        frozen, self._clocks = self.watched, self._clocks[::-1]
        self.leader, self.watched = self._controller()
        if not await self._lead():  # by this clock the lease runs for an hour: what counts is that nobody renews it
            self._pass_time(self.world.settings.controller.lease_s)
            assert await self._lead()
        before = self._dump()
        frozen.woken.set()
        with pytest.raises(StaleWrite):
            await ticking
        assert self._dump() == before
        self.refused.append(frozen.writes[-1])
        return True

    def _controller(self) -> tuple[Reconciler, Watched]:
        world, store, clock = self.world, Watched(self.world.store), self._clocks[0]
        keeper = ResidencyKeeper(store, world.blobs, [world.engine], clock, drain_s=30.0, warm=True)
        gauges = Gauges(ControllerMetrics(CollectorRegistry()), store, world.settings)
        return Reconciler(store, world.settings, keeper, world.launcher, gauges, clock), store

    async def _lead(self) -> bool:
        ttl_s = self.world.settings.controller.lease_s
        holder, now = self.leader._holder, self._clocks[0].now()
        return await self.world.store.acquire(LEASE, holder, ttl_s=ttl_s, now=now) is not None

    def _pass_time(self, seconds: float) -> None:
        for clock in self._clocks:
            clock.time += seconds


@pytest.fixture
async def rivals(store: SqlStore, dump: Dump, tmp_path: Path) -> Rivals:
    folder = tmp_path / "adapters" / NEW
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    promotion = {"cooldown_s": 1.0, "watch_s": 5.0, "watch_min_labelled": 10, "max_failures": 1}
    retrain = {"min_new_examples": 1}
    settings = load_settings(overrides={"state_dir": tmp_path, "retrain": retrain, "promotion": promotion})
    await store.add_alias("support", now=1.0)
    return Rivals(World(store, settings, tmp_path / "adapters"), dump)


async def test_whoever_is_overtaken_before_any_write_of_a_cycle_is_refused_and_the_cycle_goes_on(
    rivals: Rivals,
) -> None:
    world = rivals.world
    await world.drift()
    await rivals.state(CycleState.OPEN)
    await world.shadow(1)
    await rivals.state(CycleState.TRAINING)
    await world.finish_job()
    await rivals.state(CycleState.SHADOWING)
    await world.shadow(60, champion="right")
    await world.shadow(60)
    await rivals.state(CycleState.WATCHING)
    assert (await world.store.alias("support")).champion == NEW
    await world.shadow(60, champion="broken")
    await rivals.state(CycleState.ROLLED_BACK)
    assert (await world.store.alias("support")).champion == "base"
    await world.store.set_health("support", failures=1, latched=False, now=world.clock.now())

    async def latched() -> bool:
        return (await world.store.alias("support")).latched

    await rivals.until(latched)
    kinds = len(set(rivals.refused))
    print(f"{len(rivals.refused)} controllers overtaken, before writes of {kinds} kinds: all refused")
    assert set(rivals.refused) == FENCED - {"remove_adapter", "requeue"}  # what people do; no job dies here
    assert len(await world.store.cycles("support")) == 1
    assert (await world.store.verify_audit()).fault is None
