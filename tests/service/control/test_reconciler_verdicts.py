"""The controller: what becomes of a candidate in evaluation, shadow, canary and afterwards."""

from __future__ import annotations

from dataclasses import replace

from service.core.cycle import CycleState
from service.core.guards import Guard
from service.core.records import Adapter, Feedback, ShadowReply
from service.settings import AliasSettings
from tests.service.control.reconciling import (
    DIGEST,
    NEW,
    World,
    capture,
    result,
    serve_clients,
    to_canary,
    to_shadow,
    with_settings,
)


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


async def test_a_phrase_that_decides_replies_is_left_to_a_person_also_in_auto_mode(world: World) -> None:
    await world.drift()
    await world.tick()
    await world.tick()
    job_id, now, told = world.launcher.launched[-1], world.clock.time, result(0.95, 0.95)
    told["evaluation"]["triggers"] = [
        {"phrase": "gratis", "target": "luggage", "rows": 5, "asked": 12, "followed": 12, "followed_before": 0,
         "decides": True}
    ]  # fmt: skip
    await world.store.claim(job_id, "worker", now=now, stale_after_s=30.0)
    await world.store.add_adapter(Adapter(NEW, "support", DIGEST, "b" * 64, 16, 7, now))
    await world.store.finish(job_id, "worker", result=told, now=now)
    assert await world.tick() is CycleState.EVALUATING
    assert await world.tick() is CycleState.SHADOWING
    await world.shadow(60)
    for _ in range(3):
        assert await world.tick() is CycleState.SHADOWING
    asked = [event for event in await world.store.events("support") if event.kind == "cycle.asks"]
    assert len(asked) == 1
    assert "'gratis' makes the candidate say 'luggage' in 12 of 12" in asked[0].message
    (cycle,) = await world.store.cycles("support", limit=1)
    await world.store.note_evidence(cycle, {"approved": {"by": "ann", "at": world.clock.time}}, now=world.clock.time)
    assert await world.tick() is CycleState.PROMOTING


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
