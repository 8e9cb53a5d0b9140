"""The controller over a real SQLite store, with hand-written engines and jobs: steps, crashes, rivals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from service.control.gauges import Gauges
from service.control.reconciler import Reconciler
from service.control.residency import ResidencyKeeper
from service.core.cycle import CycleState, Trigger
from service.core.errors import Unavailable
from service.core.guards import Guard
from service.core.records import Adapter, Capture, DriftCheck, Feedback, Job, JobPhase, JobStatus, ShadowReply
from service.drivers.adapter_files import adapter_digest
from service.drivers.store import open_store
from service.ports import Store
from service.settings import AliasSettings, Settings, load_settings
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

    async def drift(self) -> None:
        self.clock.time += 1.0
        await self.store.add_drift_check(
            DriftCheck(
                f"d{self.clock.time}",
                "support",
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
        },
    }


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    folder = tmp_path / "adapters" / NEW
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    store = await open_store(f"sqlite+aiosqlite:///{tmp_path / 'store.db'}", migrate=True)
    sizes = {"promotion": {"cooldown_s": 10.0, "watch_s": 20.0, "watch_min_labelled": 10, "max_failures": 2}}
    settings = load_settings(overrides={"state_dir": tmp_path, "retrain": {"max_wait_s": 0.5}, **sizes})
    await store.add_alias("support", now=1.0)
    yield World(store, settings, tmp_path / "adapters")
    await store.close()


async def to_shadow(world: World) -> None:
    await world.drift()
    assert await world.tick() is CycleState.OPEN
    assert await world.tick() is CycleState.TRAINING
    await world.finish_job()
    assert await world.tick() is CycleState.EVALUATING
    assert await world.tick() is CycleState.SHADOWING


async def test_a_merge_that_a_person_asked_for_is_the_jobs_to_do(world: World) -> None:
    merge = {"adapters": ["support@a", "support@b"], "method": "svd", "weights": [0.5, 0.5], "density": 0.5}
    now = world.clock.time
    evidence = {"person": {"by": "ada"}, "merge": merge}
    await world.store.open_cycle("c1", "support", Trigger.PERSON, reason="x", evidence=evidence, now=now, actor="ada")
    assert await world.tick() is CycleState.TRAINING
    assert (await world.store.job(world.launcher.launched[-1])).spec["merge"] == merge


async def test_engines_load_what_a_job_wants_to_ask_before_it_is_a_candidate(world: World) -> None:
    await world.drift()
    assert await world.tick() is CycleState.OPEN
    assert await world.tick() is CycleState.TRAINING
    job_id, now = world.launcher.launched[-1], world.clock.time
    await world.store.claim(job_id, "worker", now=now, stale_after_s=30.0)
    await world.store.add_adapter(Adapter(NEW, "support", DIGEST, "b" * 64, 16, 7, now))
    await world.store.report(
        job_id, "worker", phase=JobPhase.PUBLISHING, progress=0.97, detail={"adapter": NEW}, now=now
    )
    assert await world.tick() is CycleState.EVALUATING
    assert world.engine.resident == {NEW}
    assert (await world.store.alias("support")).candidate is None
    await world.store.finish(job_id, "worker", result=result(0.95, 0.95), now=now)
    assert await world.tick() is CycleState.SHADOWING
    await world.tick()
    assert world.engine.warmed == [NEW]


async def test_a_candidate_that_differs_on_the_engines_does_not_reach_live_traffic(world: World) -> None:
    await world.drift()
    await world.tick()
    await world.tick()
    job_id, now, told = world.launcher.launched[-1], world.clock.time, result(0.95, 0.95)
    told["evaluation"]["served"] |= {"served": 0.2, "difference": 0.7, "agrees": False}
    await world.store.claim(job_id, "worker", now=now, stale_after_s=30.0)
    await world.store.finish(job_id, "worker", result=told, now=now)
    assert await world.tick() is CycleState.EVALUATING
    await world.tick()
    (cycle,) = await world.store.cycles("support")
    assert cycle.state is CycleState.REJECTED
    assert (await world.store.events(cycle_id=cycle.id))[0].message.startswith("Through the engines 20.0%")


async def test_a_cycle_from_drift_to_done(world: World) -> None:
    await to_shadow(world)
    alias = await world.store.alias("support")
    assert (alias.candidate, alias.champion) == (NEW, "base")
    assert alias.mirror_ratio > 0
    await world.tick()
    assert world.engine.resident == {NEW}
    assert world.engine.warmed == [NEW]
    assert await world.tick() is CycleState.SHADOWING
    await world.shadow(60)
    assert await world.tick() is CycleState.PROMOTING
    assert await world.tick() is CycleState.WATCHING
    alias = await world.store.alias("support")
    assert (alias.champion, alias.previous) == (NEW, "base")
    assert (alias.candidate, alias.mirror_ratio) == ("base", 0.1)  # the previous one goes on in shadow
    await world.shadow(20, champion="right")
    assert await world.tick() is CycleState.WATCHING
    assert await world.tick(30.0) is CycleState.DONE
    assert (await world.store.alias("support")).candidate is None
    kinds = {event.kind for event in await world.store.events("support")}
    assert {"cycle.open", "alias.promoted"} <= kinds


def with_settings(world: World, **changes: dict[str, Any]) -> None:
    """Another controller over the same store, with these fields of its sections changed."""
    sections = {name: getattr(world.settings, name).model_copy(update=update) for name, update in changes.items()}
    world.settings = world.settings.model_copy(update=sections)
    world.controller = world.new_controller()


async def test_a_proven_candidate_waits_for_the_end_of_a_freeze(world: World) -> None:
    with_settings(world, promotion={"freezes": ("00:00-01:00",)})  # the clock shows a quarter past
    await to_shadow(world)
    await world.shadow(60)
    for _ in range(3):
        assert await world.tick() is CycleState.SHADOWING
    (cycle,) = await world.store.cycles("support")
    assert "00:00-01:00 UTC" in cycle.evidence["waiting"]["reason"]
    world.clock.time = 3600.0
    assert await world.tick() is CycleState.PROMOTING


async def test_labels_open_a_cycle_once_and_not_again_for_the_same(world: World) -> None:
    with_settings(world, retrain={"every_labels": 20})
    await world.shadow(19)
    assert await world.tick() is None
    await world.shadow(1)
    assert await world.tick() is CycleState.OPEN
    (cycle,) = await world.store.cycles("support")
    assert cycle.trigger is Trigger.LABELS
    await world.store.advance(cycle, CycleState.FAILED, reason="test", now=world.clock.time)
    assert await world.tick(60.0) is CycleState.FAILED


async def test_the_calendar_opens_cycles_within_the_days_budget(world: World) -> None:
    with_settings(world, retrain={"every_s": 100.0, "min_examples": 5, "max_cycles_per_day": 2})
    opened = []
    for _ in range(4):
        await world.shadow(5)
        if await world.tick(200.0) is CycleState.OPEN:
            (cycle, *_) = await world.store.cycles("support")
            opened.append(cycle.trigger)
            await world.store.rollback("support", actor="ann", reason="test", now=world.clock.time)
    assert opened == [Trigger.SCHEDULE] * 2
    await world.shadow(5)
    assert await world.tick(86_400.0) is CycleState.OPEN


async def test_nothing_flips_while_an_engine_lacks_the_candidate(world: World) -> None:
    await to_shadow(world)
    await world.shadow(60)
    (world.blobs.root / NEW / "adapter_model.safetensors").write_bytes(b"tampered")
    world.engine.resident.clear()
    world.controller = world.new_controller()
    world.clock.time += 60.0
    for _ in range(4):
        assert await world.tick() in {CycleState.SHADOWING, CycleState.PROMOTING}
    assert NEW not in world.engine.resident
    assert (await world.store.alias("support")).champion == "base"


async def test_a_golden_loss_is_rejected_and_counts(world: World) -> None:
    await world.drift()
    await world.tick()
    await world.tick()
    await world.finish_job(golden=0.80)
    await world.tick()
    assert await world.tick() is CycleState.REJECTED
    alias = await world.store.alias("support")
    assert (alias.champion, alias.candidate, alias.failures) == ("base", None, 1)


async def test_failures_in_a_row_latch_and_a_latched_alias_opens_nothing(world: World) -> None:
    for _ in range(2):
        await world.tick(20.0)
        await world.drift()
        await world.tick()
        await world.tick()
        await world.store.fail(world.launcher.launched[-1], None, error="out of memory", now=world.clock.time)
        assert await world.tick() is CycleState.FAILED
    await world.tick(20.0)
    assert (await world.store.alias("support")).latched
    await world.drift()
    assert await world.tick(20.0) is CycleState.FAILED
    assert len(await world.store.cycles("support")) == 2


async def test_a_regression_rolls_back_by_itself(world: World) -> None:
    await to_shadow(world)
    await world.tick()
    await world.shadow(60, champion="right", candidate="right")
    await world.shadow(60)
    assert await world.tick() is CycleState.PROMOTING
    assert await world.tick() is CycleState.WATCHING
    await world.shadow(60, champion="broken")
    assert await world.tick() is CycleState.ROLLED_BACK
    alias = await world.store.alias("support")
    assert (alias.champion, alias.failures) == ("base", 1)


async def to_watching(world: World) -> None:
    await to_shadow(world)
    await world.shadow(60)
    assert await world.tick() is CycleState.PROMOTING
    await world.tick()
    assert await world.tick() is CycleState.WATCHING


async def test_a_champion_that_falls_behind_the_previous_one_on_the_same_requests_is_rolled_back(world: World) -> None:
    await to_watching(world)
    for i in range(40):  # as good as the previous one was, but the previous one is better now
        world.clock.time += 0.01
        at, request_id = world.clock.time, f"beside-{i}"
        await world.store.add_captures([capture(request_id, at, NEW, "wrong")])
        await world.store.add_feedback([Feedback(f"f-{request_id}", request_id, at, expected="right")])
        await world.store.add_shadow_replies([ShadowReply(request_id, "base", at, "right", 200, 0.1)])
    assert await world.tick() is CycleState.ROLLED_BACK
    (cycle,) = await world.store.cycles("support")
    (event,) = await world.store.events(kinds=["cycle.rolled_back"])
    assert "40 pairs with the previous one" in event.message
    assert cycle.evidence["rollback"]["locked"] == NEW


async def test_a_proven_candidate_that_fails_a_guard_is_rejected(world: World) -> None:
    judged = AliasSettings(guards={Guard.ERRORS: 0.1})
    world.settings = world.settings.model_copy(update={"aliases": {"support": judged}})
    world.controller = world.new_controller()
    await to_shadow(world)
    assert (await world.store.alias("support")).mirror_ratio == 1.0  # drift opened the cycle
    await world.shadow(20)
    assert await world.tick() is CycleState.SHADOWING
    for i in range(60):
        world.clock.time += 0.01
        at, request_id = world.clock.time, f"broken-{i}"
        await world.store.add_captures([capture(request_id, at, "base", "wrong")])
        await world.store.add_shadow_replies([ShadowReply(request_id, NEW, at, "", 400, 0.1, error="refused")])
    await world.shadow(20)
    assert await world.tick() is CycleState.REJECTED
    (event, *_) = await world.store.events(kinds=["cycle.rejected"])
    assert "errors: -0.600 on 100 requests, allowed -0.100" in event.message
    assert event.evidence["shadow"]["guards"] == [event.message]


async def test_a_candidate_that_is_better_but_for_one_slice_is_rejected(world: World) -> None:
    judged = AliasSettings(guards={Guard.SLICES: 0.1})
    world.settings = world.settings.model_copy(update={"aliases": {"support": judged}})
    world.controller = world.new_controller()
    await to_shadow(world)
    for i in range(25):
        world.clock.time += 0.01
        at, request_id = world.clock.time, f"french-{i}"
        await world.store.add_captures([replace(capture(request_id, at, "base", "right"), tags={"lang": "fr"})])
        await world.store.add_feedback([Feedback(f"f-{request_id}", request_id, at, expected="right")])
        await world.store.add_shadow_replies([ShadowReply(request_id, NEW, at, "wrong", 200, 0.1)])
    await world.shadow(200)
    assert await world.tick() is CycleState.REJECTED
    (event, *_) = await world.store.events(kinds=["cycle.rejected"])
    assert "slice lang=fr: -1.000 on 25 labelled pairs" in event.message


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


async def test_clients_meet_the_candidate_in_growing_shares(world: World) -> None:
    await to_canary(world)
    await serve_clients(world, 12, "right")
    world.controller = world.new_controller()  # another one goes on where it was
    assert await world.tick(11.0) is CycleState.CANARY
    assert (await world.store.alias("support")).canary_ratio == 0.5
    assert await world.tick(11.0) is CycleState.CANARY  # what the first step showed does not count for the second
    await serve_clients(world, 12, "right")
    assert await world.tick() is CycleState.PROMOTING
    assert await world.tick() is CycleState.WATCHING
    alias = await world.store.alias("support")
    assert (alias.champion, alias.canary_ratio) == (NEW, 0.0)


async def test_a_candidate_that_clients_find_worse_is_taken_from_them(world: World) -> None:
    await to_canary(world)
    await serve_clients(world, 20, "broken")
    assert await world.tick() is CycleState.REJECTED
    alias = await world.store.alias("support")
    assert (alias.champion, alias.candidate, alias.canary_ratio) == ("base", None, 0.0)
    (event, *_) = await world.store.events(kinds=["cycle.rejected"])
    assert "quality 0.0% is below the champion's 100.0%" in event.message


async def test_a_step_that_was_cut_off_in_the_middle_is_taken_again(world: World) -> None:
    await to_canary(world)
    await world.store.set_candidate("support", NEW, mirror_ratio=0.5, now=world.clock.time)
    await world.tick()
    assert (await world.store.alias("support")).canary_ratio == 0.05


async def test_what_was_rolled_back_is_refused_when_a_later_cycle_makes_it_again(world: World) -> None:
    await to_watching(world)
    await world.shadow(60, champion="broken")
    assert await world.tick() is CycleState.ROLLED_BACK
    assert (await world.store.adapter(NEW)).locked is not None
    await world.drift()
    assert await world.tick(20.0) is CycleState.OPEN
    assert await world.tick() is CycleState.TRAINING
    await world.finish_job()
    assert await world.tick() is CycleState.EVALUATING
    assert await world.tick() is CycleState.REJECTED
    (event, *_) = await world.store.events(kinds=["cycle.rejected"])
    assert f"{NEW} was rolled back before and is locked out: Quality 0.0%" in event.message
    assert (await world.store.alias("support")).candidate is None


async def test_an_engine_that_restarts_gets_its_adapters_back(world: World) -> None:
    await to_shadow(world)
    await world.tick()
    world.engine.up = False
    world.engine.resident.clear()
    await world.tick()
    assert not (await world.store.routing()).engines[0].ready
    world.engine.up = True
    await world.tick()
    view = (await world.store.routing()).engines[0]
    assert view.ready
    assert NEW in view.resident


async def test_a_new_controller_goes_on_where_the_old_one_died(world: World) -> None:
    """Every tick by another controller: nothing that the loop knows lives in a process."""
    await world.drift()
    states = []
    for step in range(8):
        world.controller = world.new_controller()
        world.clock.time += world.settings.controller.lease_s + 1.0
        states.append(await world.tick())
        if states[-1] is CycleState.TRAINING and step < 3:
            await world.finish_job()
        if states[-1] is CycleState.SHADOWING:
            await world.shadow(60)
    assert CycleState.WATCHING in states
    assert (await world.store.alias("support")).champion == NEW


async def test_only_one_of_two_controllers_acts(world: World) -> None:
    rival = world.new_controller()
    assert await world.controller.tick()
    assert not await rival.tick()
    world.clock.time += world.settings.controller.lease_s + 1.0
    assert await rival.tick()
    assert not await world.controller.tick()


async def test_a_dead_job_is_launched_again_and_then_given_up(world: World) -> None:
    await world.drift()
    await world.tick()
    await world.tick()
    job_id = world.launcher.launched[-1]
    for attempt in (1, 2):
        await world.store.claim(job_id, f"worker{attempt}", now=world.clock.time, stale_after_s=30.0)
        state = await world.tick(60.0)
    assert world.launcher.launched == [job_id, job_id]
    assert state is CycleState.FAILED
    job = await world.store.job(job_id)
    assert job.status is not JobStatus.RUNNING
