"""The controller: what starts a cycle, crashes, rivals, jobs and engines that die."""

from __future__ import annotations

import pytest

from service.core.cycle import CycleState, Trigger
from service.core.records import Adapter, JobPhase, JobStatus
from tests.service.control.reconciling import (
    DIGEST,
    NEW,
    World,
    result,
    to_canary,
    to_shadow,
    with_settings,
)


async def test_a_merge_that_a_person_asked_for_is_the_jobs_to_do(world: World) -> None:
    merge = {"adapters": ["support@a", "support@b"], "method": "svd", "weights": [0.5, 0.5], "density": 0.5}
    now = world.clock.time
    evidence = {"person": {"by": "ada"}, "merge": merge}
    await world.store.open_cycle("c1", "support", Trigger.PERSON, reason="x", evidence=evidence, now=now, actor="ada")
    assert await world.tick() is CycleState.TRAINING
    assert (await world.store.job(world.launcher.launched[-1])).spec["merge"] == merge


async def test_the_launcher_hears_of_a_job_while_its_cycle_waits_for_labels(world: World) -> None:
    await world.drift()
    assert await world.tick() is CycleState.OPEN
    (cycle,) = await world.store.cycles("support")
    assert await world.tick() is CycleState.TRAINING
    assert world.launcher.expected == [(world.launcher.launched[-1], cycle.id)]


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


@pytest.mark.parametrize(
    ("trigger", "share"),
    [
        (Trigger.DRIFT, 0.8),
        (Trigger.ALERT, 0.8),
        (Trigger.LABELS, 0.2),
        (Trigger.SCHEDULE, 0.2),
        (Trigger.PERSON, 0.2),
    ],
)
async def test_after_an_alarm_more_is_asked_of_the_candidate(world: World, trigger: Trigger, share: float) -> None:
    with_settings(world, mirror={"ratio": 0.2, "alarm_ratio": 0.8})
    await world.store.open_cycle("c1", "support", trigger, reason="x", evidence={}, now=world.clock.time, actor="ada")
    await world.tick()
    await world.finish_job()
    for _ in range(2):
        state = await world.tick()
    assert (state, (await world.store.alias("support")).mirror_ratio) == (CycleState.SHADOWING, share)


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


async def states(world: World) -> dict[str, CycleState]:
    return {cycle.alias: cycle.state for cycle in await world.store.cycles(open_only=True)}


async def test_aliases_share_one_budget_of_jobs_and_who_came_first_is_first(world: World) -> None:
    for alias in ("first", "later"):
        await world.store.add_alias(alias, now=1.0)
    waits = {"first": CycleState.OPEN, "later": CycleState.OPEN}
    for alias in ("support", "later", "first"):  # the alphabet is no order
        await world.drift(alias)
        await world.tick()
    for _ in range(3):
        await world.tick()
    assert await states(world) == {"support": CycleState.TRAINING, **waits}
    (told,) = await world.store.cycles("later")
    assert "the job of support" in told.evidence["waiting"]["reason"]
    await world.finish_job()
    for _ in range(2):
        await world.tick()
    assert await states(world) == {"support": CycleState.SHADOWING, **waits, "later": CycleState.TRAINING}


async def test_as_many_jobs_run_as_the_budget_allows(world: World) -> None:
    with_settings(world, retrain={"max_jobs": 2})
    for alias in ("other", "third"):
        await world.store.add_alias(alias, now=1.0)
    for alias in ("support", "other", "third"):
        await world.drift(alias)
    for _ in range(3):
        await world.tick()
    assert sorted((await states(world)).values()) == [CycleState.OPEN, CycleState.TRAINING, CycleState.TRAINING]
    running = next(cycle for cycle in await world.store.cycles(open_only=True) if cycle.state is CycleState.TRAINING)
    assert running.job_id is not None
    await world.store.fail(running.job_id, None, error="out of memory", now=world.clock.time)
    for _ in range(2):
        await world.tick()
    assert list((await states(world)).values()) == [CycleState.TRAINING] * 2


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


async def test_a_step_that_was_cut_off_in_the_middle_is_taken_again(world: World) -> None:
    await to_canary(world)
    await world.store.set_candidate("support", NEW, mirror_ratio=0.5, now=world.clock.time)
    await world.tick()
    assert (await world.store.alias("support")).canary_ratio == 0.05


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
