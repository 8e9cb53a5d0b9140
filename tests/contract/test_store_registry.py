"""Registry: aliases change whole, with a version and an event, and only by who may."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from service.core.cycle import CycleState, Trigger
from service.core.errors import BadRequest, Conflict, LockedOut, NotFound, StaleWrite
from service.core.names import BASE
from service.core.records import Adapter, Alias, EngineView, Job, JobStatus, Lease
from service.drivers.store import SqlStore

OLD = "support@" + "a" * 12
NEW = "support@" + "b" * 12

PATHS = {
    CycleState.OPEN: [],
    CycleState.TRAINING: [CycleState.TRAINING],
    CycleState.EVALUATING: [CycleState.TRAINING, CycleState.EVALUATING],
    CycleState.SHADOWING: [CycleState.TRAINING, CycleState.EVALUATING, CycleState.SHADOWING],
    CycleState.CANARY: [CycleState.TRAINING, CycleState.EVALUATING, CycleState.SHADOWING, CycleState.CANARY],
    CycleState.PROMOTING: [CycleState.TRAINING, CycleState.EVALUATING, CycleState.SHADOWING, CycleState.PROMOTING],
}


def adapter(name: str, **changes: object) -> Adapter:
    digest = name.partition("@")[2][0] * 64
    values = {"alias": "support", "digest": digest, "base_digest": "c" * 64, "rank": 16, "size_bytes": 2**33}
    return Adapter(**{"name": name, "created_at": 1.0, "manifest": {"rows": [1, 2]}} | values | changes)  # type: ignore[arg-type]


async def set_up(store: SqlStore) -> None:
    """An alias on the base model, with two registered adapters."""
    await store.add_alias("support", now=1.0)
    await store.add_adapter(adapter(OLD))
    await store.add_adapter(adapter(NEW, created_at=2.0))


async def cycle_in(store: SqlStore, state: CycleState) -> None:
    """Open a cycle for NEW and walk it to `state`."""
    cycle = await store.open_cycle("c1", "support", Trigger.DRIFT, reason="drift", evidence={}, now=10.0, actor="test")
    for step in PATHS[state]:
        cycle = await store.advance(cycle, step, reason="on", now=11.0, candidate=NEW)


async def event_kinds(store: SqlStore) -> list[str]:
    return [event.kind for event in await store.events()]


async def test_an_alias_is_created_once(store: SqlStore) -> None:
    made = await store.add_alias("support", now=5.0)
    again = await store.add_alias("support", now=6.0)
    assert made == again == await store.alias("support")
    assert (made.champion, made.version, made.reference_since) == (BASE, 0, 5.0)
    assert await event_kinds(store) == ["alias.created"]
    assert [alias.name for alias in await store.aliases()] == ["support"]


async def test_two_processes_may_create_an_alias_at_once(open_one) -> None:  # type: ignore[no-untyped-def]
    stores = [await open_one() for _ in range(4)]
    made = await asyncio.gather(*(store.add_alias("support", now=float(i)) for i, store in enumerate(stores)))
    assert len(set(made)) == 1
    assert await event_kinds(stores[0]) == ["alias.created"]


async def test_an_alias_needs_a_good_name_and_a_registered_champion(store: SqlStore) -> None:
    with pytest.raises(BadRequest):
        await store.add_alias("Not An Alias", now=1.0)
    with pytest.raises(NotFound, match="no adapter"):
        await store.add_alias("support", champion=OLD, now=1.0)
    assert await store.aliases() == []
    await store.add_adapter(adapter(OLD))
    assert (await store.add_alias("support", champion=OLD, now=1.0)).champion == OLD


async def test_an_adapters_name_never_changes_its_content(store: SqlStore) -> None:
    await set_up(store)
    await store.add_adapter(adapter(OLD, created_at=9.0))
    assert await store.adapter(OLD) == adapter(OLD)
    with pytest.raises(Conflict, match="other content"):
        await store.add_adapter(adapter(OLD, digest="d" * 64))
    assert [one.name for one in await store.adapters()] == [NEW, OLD]
    assert await store.adapters("other") == []
    with pytest.raises(NotFound):
        await store.adapter("support@" + "e" * 12)


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.set_candidate("nobody", NEW, mirror_ratio=0.5, now=2.0),
        lambda store: store.promote("nobody", NEW, actor="me", reason="why", now=2.0),
        lambda store: store.rollback("nobody", actor="me", reason="why", now=2.0),
        lambda store: store.set_health("nobody", failures=1, latched=False, now=2.0),
        lambda store: store.alias("nobody"),
    ],
    ids=["set_candidate", "promote", "rollback", "set_health", "alias"],
)
async def test_an_unknown_alias_is_refused(store: SqlStore, change: Callable[[SqlStore], Awaitable[Alias]]) -> None:
    await store.add_adapter(adapter(NEW))
    with pytest.raises(NotFound, match="no alias 'nobody'"):
        await change(store)


async def test_a_candidate_enters_and_leaves_the_shadow(store: SqlStore) -> None:
    await set_up(store)
    shadowed = await store.set_candidate("support", NEW, mirror_ratio=0.5, now=2.0)
    assert (shadowed.candidate, shadowed.mirror_ratio, shadowed.version) == (NEW, 0.5, 1)
    assert await store.set_candidate("support", NEW, mirror_ratio=0.5, now=3.0) == shadowed
    cleared = await store.set_candidate("support", None, mirror_ratio=0.5, now=4.0)
    assert (cleared.candidate, cleared.mirror_ratio, cleared.version) == (None, 0.0, 2)
    assert (await event_kinds(store))[:2] == ["alias.candidate", "alias.candidate"]
    with pytest.raises(NotFound):
        await store.set_candidate("support", "support@" + "f" * 12, mirror_ratio=0.5, now=5.0)
    with pytest.raises(BadRequest):
        await store.set_candidate("support", NEW, mirror_ratio=1.5, now=5.0)
    assert await store.alias("support") == cleared


async def test_an_adapter_is_removed_only_when_nothing_needs_it(store: SqlStore) -> None:
    await set_up(store)

    async def remove(name: str) -> None:
        await store.remove_adapter(name, actor="me", reason="old", now=9.0)

    await store.promote("support", OLD, actor="me", reason="first", now=3.0)
    with pytest.raises(Conflict, match="'support' serves it"):
        await remove(OLD)
    await store.promote("support", BASE, actor="me", reason="off", now=4.0)
    with pytest.raises(Conflict, match="would return to it"):
        await remove(OLD)
    await store.set_candidate("support", NEW, mirror_ratio=0.5, now=5.0)
    with pytest.raises(Conflict, match="in shadow"):
        await remove(NEW)
    await store.set_candidate("support", None, mirror_ratio=0.0, now=6.0)
    await cycle_in(store, CycleState.TRAINING)
    with pytest.raises(Conflict, match="open cycle 'c1' is proving it"):
        await remove(NEW)
    await store.rollback("support", actor="me", reason="stop", now=12.0)
    await remove(NEW)
    event = (await store.events(limit=1))[0]
    assert (event.kind, event.actor, event.evidence["adapter"]) == ("adapter.removed", "me", NEW)
    with pytest.raises(NotFound):
        await remove(NEW)
    with pytest.raises(NotFound):
        await store.promote("support", NEW, actor="me", reason="late", now=13.0)
    await store.add_adapter(adapter(NEW))
    assert {one.name for one in await store.adapters()} == {OLD, NEW}


async def test_what_is_promoted_and_removed_at_once_is_one_of_both(open_one) -> None:  # type: ignore[no-untyped-def]
    one, two = await open_one(), await open_one()
    await one.add_alias("support", now=1.0)
    for n in range(12):
        name = f"support@{n:012x}"
        await one.add_adapter(adapter(name, digest=f"{n:064x}"))
        found = await asyncio.gather(
            one.promote("support", name, actor="me", reason="x", now=2.0),
            two.remove_adapter(name, actor="me", reason="x", now=2.0),
            return_exceptions=True,
        )
        served = (await one.alias("support")).champion == name
        there = name in {found.name for found in await one.adapters()}
        assert served == there
        assert [type(result) for result in found if isinstance(result, Exception)] == [Conflict if served else NotFound]


async def test_promote_flips_everything_at_once(store: SqlStore) -> None:
    await set_up(store)
    await store.promote("support", OLD, actor="me", reason="first", now=3.0)
    await store.set_candidate("support", NEW, mirror_ratio=0.5, now=4.0)
    await store.set_health("support", failures=2, latched=False, now=5.0)
    after = await store.promote("support", NEW, actor="controller", reason="better", now=6.0)
    assert (after.champion, after.previous, after.candidate, after.mirror_ratio) == (NEW, OLD, None, 0.0)
    assert (after.reference_since, after.updated_at, after.failures, after.version) == (6.0, 6.0, 0, 4)
    event = (await store.events("support", limit=1))[0]
    assert (event.kind, event.actor, event.message, event.at) == ("alias.promoted", "controller", "better", 6.0)
    assert event.evidence == {"champion": NEW, "previous": OLD}


async def test_promoting_the_champion_again_keeps_the_previous_one(store: SqlStore) -> None:
    await set_up(store)
    once = await store.promote("support", OLD, actor="me", reason="first", now=3.0)
    assert await store.promote("support", OLD, actor="me", reason="again", now=4.0) == once


async def test_a_controller_promotes_only_what_is_still_the_candidate(store: SqlStore) -> None:
    await set_up(store)
    lease = await store.acquire("controller", "one", ttl_s=10.0, now=1.0)
    with pytest.raises(Conflict, match="not the candidate"):
        await store.promote("support", NEW, actor="controller", reason="late", now=3.0, fence=lease)
    await store.set_candidate("support", NEW, mirror_ratio=0.5, now=4.0, fence=lease)
    promoted = await store.promote("support", NEW, actor="controller", reason="better", now=5.0, fence=lease)
    assert promoted.champion == NEW


@pytest.mark.parametrize("state", PATHS)
async def test_rollback_before_the_flip_ends_the_cycle_and_keeps_the_champion(
    store: SqlStore, state: CycleState
) -> None:
    await set_up(store)
    await store.promote("support", OLD, actor="me", reason="first", now=3.0)
    await cycle_in(store, state)
    await store.enqueue(Job("j1", "c1", "support", JobStatus.QUEUED, 10.0, 10.0))
    await store.set_candidate("support", NEW, mirror_ratio=0.5, now=12.0)
    after = await store.rollback("support", actor="sre", reason="no", now=20.0)
    assert (after.champion, after.previous, after.candidate, after.mirror_ratio) == (OLD, BASE, None, 0.0)
    assert after.reference_since == 3.0
    cycle = await store.cycle("c1")
    assert (cycle.state, cycle.closed_at, cycle.is_open) == (CycleState.ROLLED_BACK, 20.0, False)
    assert (await store.job("j1")).status is JobStatus.CANCELLED
    assert (await event_kinds(store))[:2] == ["alias.rolled_back", "cycle.rolled_back"]


@pytest.mark.parametrize("watching", [False, True], ids=["between flip and next state", "watching"])
async def test_rollback_after_the_flip_restores_the_previous_adapter(store: SqlStore, watching: bool) -> None:
    await set_up(store)
    await store.promote("support", OLD, actor="me", reason="first", now=3.0)
    await cycle_in(store, CycleState.PROMOTING)
    await store.promote("support", NEW, actor="controller", reason="better", now=13.0)
    if watching:
        await store.advance(await store.cycle("c1"), CycleState.WATCHING, reason="flipped", now=14.0)
    after = await store.rollback("support", actor="sre", reason="worse", now=20.0)
    assert (after.champion, after.previous, after.reference_since, after.version) == (OLD, NEW, 20.0, 3)
    assert (await store.cycle("c1")).state is CycleState.ROLLED_BACK
    assert await store.cycles(open_only=True) == []


async def test_rollback_without_a_cycle_swaps_and_swaps_back(store: SqlStore) -> None:
    await set_up(store)
    with pytest.raises(Conflict, match="neither an open cycle nor a previous"):
        await store.rollback("support", actor="sre", reason="no", now=3.0)
    await store.promote("support", NEW, actor="me", reason="hot", now=4.0)
    back = await store.rollback("support", actor="sre", reason="worse", now=5.0)
    assert (back.champion, back.previous) == (BASE, NEW)
    forth = await store.rollback("support", actor="sre", reason="better after all", now=6.0)
    assert (forth.champion, forth.previous) == (NEW, BASE)


async def test_a_stale_controller_changes_nothing(store: SqlStore) -> None:
    await set_up(store)
    stale = await store.acquire("controller", "one", ttl_s=1.0, now=1.0)
    assert await store.acquire("controller", "two", ttl_s=10.0, now=3.0) is not None
    before, events = await store.alias("support"), await store.events()
    for write in (
        store.set_candidate("support", NEW, mirror_ratio=0.5, now=4.0, fence=stale),
        store.promote("support", NEW, actor="controller", reason="x", now=4.0, fence=stale),
        store.rollback("support", actor="controller", reason="x", now=4.0, fence=stale),
        store.rollback("support", actor="controller", reason="x", now=4.0, fence=Lease("never", "one", 1, 9.0)),
    ):
        with pytest.raises(StaleWrite, match="lease"):
            await write
    assert await store.alias("support") == before
    assert await store.events() == events


async def test_health_and_the_latch(store: SqlStore) -> None:
    await set_up(store)
    sick = await store.set_health("support", failures=3, latched=True, now=2.0)
    assert (sick.failures, sick.latched, sick.version) == (3, True, 1)
    assert await store.set_health("support", failures=3, latched=True, now=3.0) == sick
    assert (await event_kinds(store))[0] == "alias.health"
    assert not (await store.set_health("support", failures=0, latched=False, now=4.0)).latched


async def test_routing_is_the_registry_in_one_snapshot(store: SqlStore) -> None:
    assert (await store.routing()).base_models == frozenset()
    await set_up(store)
    one = EngineView("http://one", True, frozenset({OLD, NEW}), 1.0, "tiny")
    two = EngineView("http://two", False, frozenset(), 1.0, "tiny")
    await store.report_engines([two, one])
    table = await store.routing()
    assert table.aliases == {"support": await store.alias("support")}
    assert table.adapters == {OLD: "support", NEW: "support"}
    assert table.engines == (one, two)
    assert table.base_models == frozenset({"tiny"})
    gone = EngineView("http://one", False, frozenset(), 2.0, "tiny")
    await store.report_engines([gone])
    assert (await store.routing()).engines == (gone,)
    await store.report_engines([])
    assert (await store.routing()).engines == ()


async def test_what_is_locked_out_comes_back_only_by_force(store: SqlStore) -> None:
    await set_up(store)
    await store.promote("support", OLD, actor="ada", reason="good", now=2.0)
    await store.promote("support", NEW, actor="ada", reason="better?", now=3.0)
    back = await store.rollback("support", actor="controller", reason="It was not.", now=4.0, lock=True)
    assert (back.champion, back.previous) == (OLD, NEW)
    assert (await store.adapter(NEW)).locked == "It was not."
    events = await store.events()
    assert events[0].evidence["locked"] == NEW
    with pytest.raises(LockedOut, match=r"It was not\..*--force"):
        await store.promote("support", NEW, actor="ada", reason="again", now=5.0)
    with pytest.raises(LockedOut, match="came back from"):
        await store.rollback("support", actor="ada", reason="again", now=5.0)
    await store.add_adapter(adapter(NEW, created_at=2.0))  # made anew, it is the same
    assert (await store.adapter(NEW)).locked == "It was not."
    assert await store.events() == events
    forth = await store.promote("support", NEW, actor="ada", reason="I insist", now=6.0, force=True)
    assert (forth.champion, (await store.adapter(NEW)).locked) == (NEW, None)
    assert (await store.events())[0].evidence["forced"] == "It was not."
    assert (await store.verify_audit()).fault is None


async def test_a_person_who_rolls_back_locks_nothing_out_nor_does_a_cycle_that_had_not_promoted(
    store: SqlStore,
) -> None:
    await set_up(store)
    await store.promote("support", NEW, actor="ada", reason="good", now=3.0)
    await cycle_in(store, CycleState.SHADOWING)
    await store.rollback("support", actor="controller", reason="x", now=4.0, lock=True)
    await store.rollback("support", actor="ada", reason="x", now=5.0)
    assert (await store.adapter(NEW)).locked is None


async def test_the_champion_before_goes_on_in_shadow_where_that_is_asked_for(store: SqlStore) -> None:
    await set_up(store)
    await store.set_candidate("support", NEW, mirror_ratio=0.5, now=2.0)
    flipped = await store.promote("support", NEW, actor="c", reason="x", now=3.0, reverse_ratio=0.2)
    assert (flipped.champion, flipped.candidate, flipped.mirror_ratio) == (NEW, BASE, 0.2)
    assert (await store.rollback("support", actor="c", reason="x", now=4.0)).candidate is None
