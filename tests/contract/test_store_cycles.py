"""Cycles: one open an alias, moved only along the table and only from where the writer saw them."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest

from service.core.cycle import CycleState, Trigger
from service.core.errors import Conflict, IllegalTransition, NotFound, StaleWrite
from service.core.records import Cycle, DriftCheck, DriftReference, Job, JobStatus
from service.drivers.store import SqlStore


async def opened(store: SqlStore, cycle_id: str = "c1", alias: str = "support", now: float = 10.0) -> Cycle:
    await store.add_alias(alias, now=1.0)
    return await store.open_cycle(
        cycle_id, alias, Trigger.DRIFT, reason="inputs moved", evidence={"drift": 1.5}, now=now, actor="monitor"
    )


async def test_a_cycle_opens_with_its_event(store: SqlStore) -> None:
    cycle = await opened(store)
    assert cycle == await store.cycle("c1")
    assert (cycle.state, cycle.trigger, cycle.opened_at, cycle.closed_at) == (
        CycleState.OPEN, Trigger.DRIFT, 10.0, None,
    )  # fmt: skip
    event = (await store.events("support", limit=1))[0]
    assert (event.kind, event.actor, event.cycle_id) == ("cycle.open", "monitor", "c1")
    assert event.evidence == {"trigger": "drift", "drift": 1.5}


async def test_an_alias_has_one_open_cycle(store: SqlStore) -> None:
    cycle = await opened(store)
    with pytest.raises(Conflict, match="open cycle"):
        await opened(store, "c2")
    await opened(store, "c3", alias="billing")
    await store.advance(cycle, CycleState.FAILED, reason="no data", now=11.0)
    await opened(store, "c2", now=12.0)
    assert [one.id for one in await store.cycles("support")] == ["c2", "c1"]
    assert [one.id for one in await store.cycles(open_only=True)] == ["c2", "c3"]
    assert [one.id for one in await store.cycles(limit=1)] == ["c2"]
    with pytest.raises(NotFound):
        await store.open_cycle("c4", "nobody", Trigger.PERSON, reason="x", evidence={}, now=1.0, actor="me")


async def test_of_many_that_open_at_once_one_wins(open_one) -> None:  # type: ignore[no-untyped-def]
    stores = [await open_one() for _ in range(4)]
    await stores[0].add_alias("support", now=1.0)

    async def race(i: int, store: SqlStore) -> Cycle:
        return await store.open_cycle(
            f"c{i}", "support", Trigger.PERSON, reason="race", evidence={}, now=2.0, actor="me"
        )

    found = await asyncio.gather(*(race(i, store) for i, store in enumerate(stores)), return_exceptions=True)
    assert sum(isinstance(one, Cycle) for one in found) == 1
    assert sum(isinstance(one, Conflict) for one in found) == 3
    assert len(await stores[0].cycles()) == 1
    assert len(await stores[0].events()) == 2


async def test_advance_moves_merges_and_records(store: SqlStore) -> None:
    cycle = await opened(store)
    cycle = await store.advance(cycle, CycleState.TRAINING, reason="go", now=11.0, job_id="j1", evidence={"rows": 3})
    moved = await store.advance(
        cycle, CycleState.EVALUATING, reason="trained", now=12.0, candidate="support@x", evidence={"drift": 2.0}
    )
    assert moved == await store.cycle("c1")
    assert (moved.state, moved.job_id, moved.candidate, moved.state_since) == (
        CycleState.EVALUATING, "j1", "support@x", 12.0,
    )  # fmt: skip
    assert moved.evidence == {"drift": 2.0, "rows": 3}
    event = (await store.events(limit=1))[0]
    assert (event.kind, event.actor, event.message) == ("cycle.evaluating", "controller", "trained")
    assert event.evidence == {"from": "training", "candidate": "support@x", "drift": 2.0}


async def test_advance_follows_the_table(store: SqlStore) -> None:
    cycle = await opened(store)
    with pytest.raises(IllegalTransition):
        await store.advance(cycle, CycleState.PROMOTING, reason="jump", now=11.0)
    ended = await store.advance(cycle, CycleState.ROLLED_BACK, reason="stop", now=12.0)
    assert (ended.closed_at, ended.is_open) == (12.0, False)
    with pytest.raises(IllegalTransition):
        await store.advance(ended, CycleState.TRAINING, reason="again", now=13.0)


async def test_advance_only_from_what_the_writer_saw(open_one) -> None:  # type: ignore[no-untyped-def]
    one, two = await open_one(), await open_one()
    cycle = await opened(one)
    found = await asyncio.gather(
        one.advance(cycle, CycleState.TRAINING, reason="a", now=11.0),
        two.advance(cycle, CycleState.FAILED, reason="b", now=11.0),
        return_exceptions=True,
    )
    assert sorted(type(result) for result in found if isinstance(result, Exception)) == [Conflict]
    assert len(await one.events("support")) == 3
    with pytest.raises(NotFound):
        await one.advance(
            Cycle("none", "support", CycleState.OPEN, Trigger.DRIFT, "", 0.0, 0.0, 0.0), CycleState.TRAINING,
            reason="x", now=1.0,
        )  # fmt: skip


async def test_a_cycle_that_ends_takes_its_jobs_with_it(store: SqlStore) -> None:
    cycle = await opened(store)
    await store.enqueue(Job("j1", "c1", "support", JobStatus.QUEUED, 10.0, 10.0))
    await store.enqueue(Job("j2", "c1", "support", JobStatus.QUEUED, 10.0, 10.0))
    await store.fail("j2", None, error="gone", now=11.0)
    await store.advance(cycle, CycleState.FAILED, reason="x", now=12.0)
    assert [(await store.job(one)).status for one in ("j1", "j2")] == [JobStatus.CANCELLED, JobStatus.FAILED]


async def test_a_cycle_that_ends_badly_counts_with_its_end_and_a_person_s_rollback_does_not(open_one) -> None:  # type: ignore[no-untyped-def]
    store = await open_one()
    lease = await store.acquire("controller", "me", ttl_s=60.0, now=1.0)
    for number, end in enumerate((CycleState.FAILED, CycleState.ROLLED_BACK), 1):
        await store.advance(await opened(store, f"c{number}"), end, reason="broken", now=11.0, fence=lease)
        assert (await store.alias("support")).failures == number
    await opened(store, "c3")
    await store.rollback("support", actor="ada", reason="enough", now=12.0)
    assert (await store.alias("support")).failures == 2
    await opened(store, "c4")
    assert (await store.rollback("support", actor="me", reason="worse", now=13.0, fence=lease)).failures == 3
    told = [event.message for event in await store.events("support", kinds=["alias.health"])]
    assert told == ["2 failures in a row.", "1 failure in a row."]


async def test_evidence_is_noted_without_a_move(store: SqlStore) -> None:
    cycle = await opened(store)
    await store.note_evidence(cycle, {"shadow": {"pairs": 3}}, now=11.0)
    noted = await store.note_evidence(cycle, {"evaluation": 0.9, "lost": math.nan}, now=12.0)
    assert noted.evidence == {"drift": 1.5, "shadow": {"pairs": 3}, "evaluation": 0.9, "lost": None}
    assert (noted.state, noted.state_since, noted.updated_at) == (CycleState.OPEN, 10.0, 12.0)
    assert len(await store.events("support")) == 2


async def test_evidence_and_its_event_are_one_write(store: SqlStore) -> None:
    cycle = await opened(store)
    stale = await store.acquire("controller", "one", ttl_s=1.0, now=1.0)
    assert await store.acquire("controller", "two", ttl_s=9.0, now=3.0)
    asked = {"asked": {"told": False}}
    with pytest.raises(StaleWrite):
        await store.note_evidence(cycle, asked, now=11.0, kind="cycle.asks", message="May it?", fence=stale)
    assert "asked" not in (await store.cycle(cycle.id)).evidence
    assert not await store.events(kinds=["cycle.asks"])
    noted = await store.note_evidence(cycle, asked, now=12.0, kind="cycle.asks", message="May it?", actor="controller")
    assert noted.evidence["asked"] == {"told": False}
    [event] = await store.events("support", kinds=["cycle.asks"])
    assert (event.message, event.cycle_id, event.at) == ("May it?", cycle.id, 12.0)


async def test_a_stale_controller_moves_nothing(store: SqlStore) -> None:
    cycle = await opened(store)
    stale = await store.acquire("controller", "one", ttl_s=1.0, now=1.0)
    fresh = await store.acquire("controller", "two", ttl_s=9.0, now=3.0)
    await store.add_alias("billing", now=1.0)
    with pytest.raises(StaleWrite):
        await store.advance(cycle, CycleState.TRAINING, reason="x", now=4.0, fence=stale)
    with pytest.raises(StaleWrite):
        await store.open_cycle("c9", "billing", Trigger.DRIFT, reason="x", evidence={}, now=4.0, actor="x", fence=stale)
    assert await store.cycles() == [cycle]
    await store.advance(cycle, CycleState.TRAINING, reason="x", now=4.0, fence=fresh)


async def test_events_newest_first_and_after_an_id(store: SqlStore) -> None:
    for i in range(5):
        await store.add_event("note", actor="me", message=str(i), now=float(i), alias="support" if i % 2 else None)
    everything = await store.events()
    assert [event.message for event in everything] == ["4", "3", "2", "1", "0"]
    assert [event.message for event in await store.events("support")] == ["3", "1"]
    assert [event.message for event in await store.events(after_id=everything[2].id)] == ["4", "3"]
    assert [event.message for event in await store.events(limit=2)] == ["4", "3"]
    assert everything[0].evidence == {}


async def test_drift_checks_are_kept_once_newest_first(store: SqlStore) -> None:
    checks = [
        DriftCheck(f"d{i}", "support", float(i), "drifted", [{"detector": "input", "score": 2.0}], ["moved"], 500, 200)
        for i in range(3)
    ]
    for check in (*checks, checks[0]):
        await store.add_drift_check(check)
    assert await store.drift_checks("support") == checks[::-1]
    assert await store.drift_checks(limit=1) == [checks[2]]
    assert await store.drift_checks("other") == []


async def test_a_slices_checks_are_its_own(store: SqlStore) -> None:
    whole = DriftCheck("d1", "support", 1.0, "DRIFTED", [], [], 5, 2, topics=[{"words": ["flights"]}], since=0.5)
    part = DriftCheck("d2", "support", 2.0, "STABLE", [], [], 5, 2, slice="channel=web", reference="abc")
    for check in (whole, part):
        await store.add_drift_check(check)
    assert await store.drift_checks("support") == [whole]
    assert await store.drift_checks("support", slice="channel=web") == [part]
    assert await store.drift_checks("support", slice="channel=app") == []
    assert await store.drift_checks("support", verdict="DRIFTED") == [whole]
    assert await store.drift_checks("support", verdict="STABLE") == []


async def test_references_are_kept_once_newest_first(store: SqlStore) -> None:
    first = DriftReference("aa", "support", 0.0, 5.0, 500, 6.0, "promotion")
    second = DriftReference("bb", "support", 7.0, 9.0, 500, 10.0, "rolling")
    of_slice = DriftReference("cc", "support", 0.0, 5.0, 500, 11.0, "promotion", "channel=web")
    for reference in (first, second, second, of_slice):
        await store.add_drift_reference(reference)
    assert await store.drift_references("support") == [second, first]
    assert await store.drift_references("support", limit=1) == [second]
    assert await store.drift_references("support", slice="channel=web") == [of_slice]
    assert await store.drift_references("other") == []
    again = replace(first, made_at=20.0, made_by="person")
    await store.add_drift_reference(again)
    assert await store.drift_references("support") == [again, second]
