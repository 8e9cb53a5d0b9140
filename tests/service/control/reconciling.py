"""A controller over a real SQLite store, with engines and jobs written by hand."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from service.control.gauges import Gauges
from service.control.reconciler import Reconciler
from service.control.residency import ResidencyKeeper
from service.core.cycle import CycleState
from service.core.errors import Unavailable
from service.core.records import Adapter, Capture, DriftCheck, Feedback, Job, JobPhase, ShadowReply
from service.drivers.adapter_files import adapter_digest
from service.ports import Store
from service.settings import Settings
from service.telemetry import ControllerMetrics

FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights"}
DIGEST = adapter_digest(FILES)
NEW = f"support@{DIGEST[:12]}"


class HandClock:
    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        await asyncio.sleep(0)


class FakeEngine:
    url = "http://engine"

    def __init__(self) -> None:
        self.up = True
        self.resident: set[str] = set()
        self.warmed: list[str] = []

    async def ready(self) -> bool:
        return self.up

    async def models(self) -> tuple[str, frozenset[str]]:
        if not self.up:
            raise Unavailable("gone")
        return "the-base", frozenset(self.resident)

    async def load(self, name: str, path: str) -> None:
        assert (Path(path) / "adapter_model.safetensors").is_file()
        self.resident.add(name)

    async def unload(self, name: str) -> None:
        self.resident.discard(name)

    async def warm(self, model: str) -> None:
        self.warmed.append(model)


class FakeLauncher:
    def __init__(self) -> None:
        self.launched: list[str] = []
        self.expected: list[tuple[str, str]] = []

    async def expect(self, job_id: str, cycle_id: str) -> None:
        self.expected.append((job_id, cycle_id))

    async def launch(self, job: Job) -> None:
        self.launched.append(job.id)

    async def stop(self) -> None:
        self.launched.append("stopped")


class Folder:
    """A folder of adapters, as the local adapter store keeps them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    async def local(self, prefix: str) -> str:
        return str(self.root / prefix)


class World:
    def __init__(self, store: Store, settings: Settings, root: Path) -> None:
        self.store = store
        self.settings = settings
        self.clock = HandClock()
        self.engine = FakeEngine()
        self.launcher = FakeLauncher()
        self.blobs = Folder(root)
        self.controller = self.new_controller()

    def new_controller(self) -> Reconciler:
        keeper = ResidencyKeeper(
            self.store,
            self.blobs,
            [self.engine],
            self.clock,
            drain_s=30.0,
            warm=True,  # type: ignore[arg-type]
        )
        gauges = Gauges(ControllerMetrics(CollectorRegistry()), self.store, self.settings)
        return Reconciler(self.store, self.settings, keeper, self.launcher, gauges, self.clock)

    async def tick(self, seconds: float = 1.0) -> CycleState | None:
        self.clock.time += seconds
        await self.controller.tick()
        cycles = await self.store.cycles("support", limit=1)
        return cycles[0].state if cycles else None

    async def drift(self, alias: str = "support") -> None:
        self.clock.time += 1.0
        await self.store.add_drift_check(
            DriftCheck(
                f"d{self.clock.time}",
                alias,
                self.clock.time,
                "DRIFTED",
                (),
                ("quality fell",),
                300,
                100,
                retrain=True,
            )
        )

    async def finish_job(self, *, golden: float = 0.95, heldout: float = 0.95) -> None:
        job_id = self.launcher.launched[-1]
        now = self.clock.time
        await self.store.claim(job_id, "worker", now=now, stale_after_s=30.0)
        await self.store.report(job_id, "worker", phase=JobPhase.EVALUATING, progress=0.9, detail={}, now=now)
        await self.store.add_adapter(Adapter(NEW, "support", DIGEST, "b" * 64, 16, 7, now))
        await self.store.finish(job_id, "worker", result=result(golden, heldout), now=now)

    async def shadow(self, pairs: int, *, champion: str = "wrong", candidate: str = "right") -> None:
        for i in range(pairs):
            self.clock.time += 0.01
            request_id, at = f"r{self.clock.time}-{i}", self.clock.time
            alias = await self.store.alias("support")
            await self.store.add_captures([capture(request_id, at, alias.champion, champion)])
            await self.store.add_feedback([Feedback(f"f-{request_id}", request_id, at, expected="right")])
            await self.store.add_shadow_replies([ShadowReply(request_id, NEW, at, candidate, 200, 0.1)])


def capture(request_id: str, at: float, adapter: str, reply: str) -> Capture:
    prompt = ({"role": "user", "content": "?"},)
    return Capture(request_id, at, "support", adapter, "http://engine", prompt, reply, 200, 0.1)


def result(golden: float, heldout: float) -> dict[str, Any]:
    return {
        "adapter": NEW,
        "evaluation": {
            "golden": {"champion": 0.95, "candidate": golden, "n": 100},
            "heldout": {"all": {"champion": 0.5, "candidate": heldout, "n": 50}},
            "served": {"n": 9, "served": 0.9, "pytorch": 0.9, "difference": 0.0, "tolerance": 0.1, "agrees": True},
            "triggers": [],
        },
    }


async def to_shadow(world: World) -> None:
    await world.drift()
    assert await world.tick() is CycleState.OPEN
    assert await world.tick() is CycleState.TRAINING
    await world.finish_job()
    assert await world.tick() is CycleState.EVALUATING
    assert await world.tick() is CycleState.SHADOWING


def with_settings(world: World, **changes: dict[str, Any]) -> None:
    """Another controller over the same store, with these fields of its sections changed."""
    sections = {name: getattr(world.settings, name).model_copy(update=update) for name, update in changes.items()}
    world.settings = world.settings.model_copy(update=sections)
    world.controller = world.new_controller()


async def serve_clients(world: World, replies: int, candidate: str) -> None:
    """Clients of both sides, the champion's always right."""
    for i in range(replies):
        world.clock.time += 0.01
        for adapter, reply in (("base", "right"), (NEW, candidate)):
            at, request_id = world.clock.time, f"{adapter}-{world.clock.time}-{i}"
            await world.store.add_captures([capture(request_id, at, adapter, reply)])
            await world.store.add_feedback([Feedback(f"f-{request_id}", request_id, at, expected="right")])


CANARY = {"canary": (0.05, 0.5), "canary_step_s": 10.0, "canary_min_labelled": 10}


async def to_canary(world: World) -> None:
    with_settings(world, promotion=CANARY)
    await to_shadow(world)
    await world.shadow(60)
    assert await world.tick() is CycleState.CANARY
    await world.tick()
    assert (await world.store.alias("support")).canary_ratio == 0.05
