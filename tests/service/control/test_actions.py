"""What a person does to an alias: what changes, what is refused, and how an open cycle ends."""

from __future__ import annotations

from collections.abc import Sequence

import httpx
import pytest

from service.core.cycle import TERMINAL, TRANSITIONS, CycleState, Trigger
from service.core.records import Cycle, Job, JobStatus
from service.ports import Store
from service.settings import Settings
from tests.service.control.desk import ENGINES, adapter, report_engines
from tests.service.control.parts import Changes, HandClock, control_app

OLD, NEW = adapter("old", "support", 1.0), adapter("new", "support", 2.0)
OTHER = adapter("other", "billing", 3.0)
OPEN = [state for state in CycleState if state not in TERMINAL]
WHY = {"reason": "because"}


@pytest.fixture(autouse=True)
async def desk(store: Store, clock: HandClock) -> None:
    """`support` serves OLD after base; OLD and NEW are on both engines."""
    await store.add_alias("support", now=0.0)
    await store.add_alias("billing", now=0.0)
    for made in (OLD, NEW, OTHER):
        await store.add_adapter(made)
    await store.promote("support", OLD.name, actor="test", reason="start", now=4.0)
    await report_engines(store, clock.now(), resident=[OLD.name, NEW.name])


async def in_state(store: Store, state: CycleState, candidate: str | None, now: float) -> Cycle:
    """A cycle of `support` walked to `state` through the table, with a queued job once it trains."""
    cycle = await store.open_cycle(
        "c1", "support", Trigger.DRIFT, reason="drift", evidence={}, now=now, actor="controller"
    )
    for step in _path(state):
        job_id = None
        if step is CycleState.TRAINING:
            await store.enqueue(Job("j1", "c1", "support", JobStatus.QUEUED, now, now))
            job_id = "j1"
        found = candidate if step is CycleState.SHADOWING else None
        if found:
            await store.set_candidate("support", found, mirror_ratio=0.5, now=now)
        if step is CycleState.WATCHING and candidate:
            await store.promote("support", candidate, actor="controller", reason="proven", now=now)
        cycle = await store.advance(cycle, step, reason=f"to {step}", now=now, job_id=job_id, candidate=found)
    return cycle


def _path(state: CycleState) -> Sequence[CycleState]:
    line = [CycleState.TRAINING, CycleState.EVALUATING, CycleState.SHADOWING, CycleState.PROMOTING, CycleState.WATCHING]
    if state is CycleState.OPEN:
        return []
    if state is CycleState.CANARY:
        return [*line[:3], state]
    return line[: line.index(state) + 1]


async def promote(api: httpx.AsyncClient, name: str) -> httpx.Response:
    return await api.post("/api/v1/aliases/support/promote", json={"adapter": name, **WHY})


@pytest.mark.parametrize("state", [CycleState.SHADOWING, CycleState.CANARY, CycleState.PROMOTING])
async def test_promoting_the_candidate_by_hand_goes_on_to_watching_it(
    api: httpx.AsyncClient, store: Store, clock: HandClock, changes: Changes, state: CycleState
) -> None:
    await in_state(store, state, NEW.name, clock.now())
    reply = await promote(api, NEW.name)
    assert reply.status_code == 200, reply.text
    assert (reply.json()["champion"], reply.json()["previous"]) == (NEW.name, OLD.name)
    assert reply.json()["open_cycle"]["state"] == "watching"
    assert (await store.alias("support")).champion == NEW.name
    assert changes.count == 1
    promoted = next(event for event in await store.events("support") if event.kind == "alias.promoted")
    assert (promoted.actor, promoted.message) == ("ada", "because")


@pytest.mark.parametrize("state", OPEN)
async def test_promoting_another_adapter_ends_the_cycle_as_the_table_allows(
    api: httpx.AsyncClient, store: Store, clock: HandClock, state: CycleState
) -> None:
    other = adapter("rival", "support", 9.0)
    await store.add_adapter(other)
    await report_engines(store, clock.now(), resident=[OLD.name, NEW.name, other.name])
    cycle = await in_state(store, state, NEW.name, clock.now())
    reply = await promote(api, other.name)
    assert reply.status_code == 200, reply.text
    alias = await store.alias("support")
    assert (alias.champion, alias.candidate) == (other.name, None)
    ended = await store.cycle(cycle.id)
    assert not ended.is_open
    assert ended.state in TRANSITIONS[state]
    if cycle.job_id:
        assert (await store.job(cycle.job_id)).status is JobStatus.CANCELLED


async def test_the_base_can_be_promoted(api: httpx.AsyncClient, store: Store) -> None:
    assert (await promote(api, "base")).json()["champion"] == "base"
    assert (await store.alias("support")).previous == OLD.name


async def test_promotions_that_are_refused_change_nothing(
    api: httpx.AsyncClient, store: Store, clock: HandClock, changes: Changes
) -> None:
    await in_state(store, CycleState.SHADOWING, NEW.name, clock.now())
    before = await store.alias("support")

    async def refused(name: str, status: int, told: str) -> None:
        reply = await promote(api, name)
        assert reply.status_code == status, reply.text
        assert told in reply.json()["error"]["message"]

    await refused(OLD.name, 409, "already")
    await refused("support@000000000000", 404, "no adapter")
    await refused(OTHER.name, 409, "made for 'billing'")
    await report_engines(store, clock.now(), resident=[OLD.name])
    await refused(NEW.name, 409, f"not loaded on {ENGINES[0]}, {ENGINES[1]}")
    await report_engines(store, clock.now(), resident=[NEW.name], ready=False)
    await refused(NEW.name, 409, "No engine is ready")
    bad = await api.post("/api/v1/aliases/support/promote", json={"adapter": NEW.name, "reason": "  "})
    assert bad.status_code == 400
    unknown = await api.post("/api/v1/aliases/nobody/promote", json={"adapter": NEW.name, **WHY})
    assert unknown.status_code == 404
    assert await store.alias("support") == before
    assert (await store.cycle("c1")).state is CycleState.SHADOWING
    assert changes.count == 0


async def test_rollback_swaps_champion_and_previous(api: httpx.AsyncClient, store: Store, changes: Changes) -> None:
    reply = await api.post("/api/v1/aliases/support/rollback", json=WHY)
    assert (reply.json()["champion"], reply.json()["previous"]) == ("base", OLD.name)
    assert changes.count == 1
    nothing = await api.post("/api/v1/aliases/billing/rollback", json=WHY)
    assert nothing.status_code == 409
    assert "previous" in nothing.json()["error"]["message"]


async def test_rollback_during_training_ends_cycle_and_job_and_keeps_the_champion(
    api: httpx.AsyncClient, store: Store, clock: HandClock
) -> None:
    await in_state(store, CycleState.TRAINING, None, clock.now())
    assert (await api.post("/api/v1/aliases/support/rollback", json=WHY)).json()["champion"] == OLD.name
    assert (await store.cycle("c1")).state is CycleState.ROLLED_BACK
    assert (await store.job("j1")).status is JobStatus.CANCELLED


async def test_retrain_opens_one_cycle(api: httpx.AsyncClient, store: Store) -> None:
    opened = await api.post("/api/v1/aliases/support/retrain", json=WHY)
    assert opened.status_code == 201
    cycle = await store.cycle(opened.json()["id"])
    assert (cycle.trigger, cycle.reason, cycle.state) == (Trigger.PERSON, "because", CycleState.OPEN)
    assert (await api.post("/api/v1/aliases/support/retrain", json=WHY)).status_code == 409
    assert (await api.post("/api/v1/aliases/nobody/retrain", json=WHY)).status_code == 404
    assert len(await store.cycles("support")) == 1


async def test_adapters_to_merge_are_checked_before_a_cycle_opens(api: httpx.AsyncClient, store: Store) -> None:
    async def asked(*adapters: str, **more: object) -> httpx.Response:
        body = {**WHY, "merge": {"adapters": adapters, **more}}
        return await api.post("/api/v1/aliases/support/retrain", json=body)

    assert (await asked(OLD.name)).status_code == 400
    assert (await asked(OLD.name, NEW.name, weights=[1.0])).status_code == 400
    assert (await asked(OLD.name, NEW.name, method="magic")).status_code == 400
    assert (await asked(OLD.name, "support@000000000000")).status_code == 404
    assert await store.cycles("support") == []
    opened = await asked(OLD.name, NEW.name, method="ties", weights=[1.0, 0.5])
    assert opened.status_code == 201
    merge = (await store.cycle(opened.json()["id"])).evidence["merge"]
    assert merge == {"adapters": [OLD.name, NEW.name], "method": "ties", "weights": [1.0, 0.5], "density": 0.5}


async def test_unlatch_forgets_the_failures(api: httpx.AsyncClient, store: Store) -> None:
    await store.set_health("support", failures=3, latched=True, now=5.0)
    reply = await api.post("/api/v1/aliases/support/unlatch")
    assert (reply.json()["failures"], reply.json()["latched"]) == (0, False)
    assert (await store.events("support"))[0].actor == "ada"


async def test_approval_is_noted_on_the_cycle_in_shadow(api: httpx.AsyncClient, store: Store, clock: HandClock) -> None:
    assert (await api.post("/api/v1/aliases/support/approve")).status_code == 409
    await in_state(store, CycleState.SHADOWING, NEW.name, clock.now())
    assert (await api.post("/api/v1/aliases/support/approve")).status_code == 200
    assert (await store.cycle("c1")).evidence["approved"] == {"by": "ada", "at": clock.now()}
    assert (await api.get("/api/v1/aliases/support")).json()["awaits_approval"] is False


async def test_in_auto_mode_only_doubts_wait_for_approval(store: Store, settings: Settings, clock: HandClock) -> None:
    await in_state(store, CycleState.SHADOWING, NEW.name, clock.now())
    auto = Settings(state_dir=settings.state_dir)
    transport = httpx.ASGITransport(control_app(store, auto, clock))
    headers = {"authorization": "Bearer admin-key"}
    async with httpx.AsyncClient(transport=transport, base_url="http://control", headers=headers) as api:
        reply = await api.post("/api/v1/aliases/support/approve")
        assert reply.status_code == 409
        assert "auto" in reply.json()["error"]["message"]
        assert "approved" not in (await store.cycle("c1")).evidence
        cycle = await store.cycle("c1")
        await store.note_evidence(cycle, {"doubts": ["A person must agree: …"]}, now=clock.now())
        assert (await api.get("/api/v1/aliases/support")).json()["awaits_approval"] is True
        assert (await api.post("/api/v1/aliases/support/approve")).status_code == 200
    assert (await store.cycle("c1")).evidence["approved"]["by"] == "ada"


async def test_an_adapter_is_staged_loaded_and_then_promoted(
    api: httpx.AsyncClient, store: Store, clock: HandClock
) -> None:
    late = adapter("late", "support", 9.0)
    await store.add_adapter(late)
    assert (await promote(api, late.name)).json()["error"]["code"] == "adapter_not_resident"
    staged = await api.post("/api/v1/aliases/support/candidate", json={"adapter": late.name})
    assert (staged.json()["candidate"], staged.json()["mirror_ratio"]) == (late.name, 0.0)
    await report_engines(store, clock.now(), resident=[OLD.name, late.name])
    assert (await promote(api, late.name)).json()["champion"] == late.name


async def test_staging_leaves_an_open_cycle_alone(api: httpx.AsyncClient, store: Store, clock: HandClock) -> None:
    await in_state(store, CycleState.TRAINING, None, clock.now())
    assert (await api.post("/api/v1/aliases/support/candidate", json={"adapter": NEW.name})).status_code == 409
    assert (await store.alias("support")).candidate is None


async def test_a_staged_adapter_can_be_taken_away(api: httpx.AsyncClient, store: Store) -> None:
    url = "/api/v1/aliases/support/candidate"
    assert (await api.post(url, json={"adapter": NEW.name})).json()["candidate"] == NEW.name
    assert (await api.post(url, json={"adapter": None})).json()["candidate"] is None
    assert (await api.post(url, json={})).status_code == 400


async def test_an_adapter_that_is_locked_out_is_promoted_only_by_force(api: httpx.AsyncClient, store: Store) -> None:
    await store.promote("support", NEW.name, actor="controller", reason="proven", now=5.0)
    await store.rollback("support", actor="controller", reason="It broke JSON.", now=6.0, lock=True)
    body = {"adapter": NEW.name, **WHY}
    refused = await api.post("/api/v1/aliases/support/promote", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "adapter_locked")
    assert "It broke JSON." in refused.json()["error"]["message"]
    assert (await api.get(f"/api/v1/adapters/{NEW.name}")).json()["locked"] == "It broke JSON."
    promoted = await api.post("/api/v1/aliases/support/promote", json={**body, "force": True})
    assert (promoted.status_code, promoted.json()["champion"]) == (200, NEW.name)
