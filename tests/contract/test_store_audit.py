"""The audit log: one chain whoever writes, and no change of it, or of what it explains, goes unseen."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from service.core.audit import GENESIS, Link, digest, seal
from service.core.cycle import CycleState, Trigger
from service.core.errors import BadRequest, ConfigError, Conflict
from service.core.records import Adapter, Event
from service.drivers.schema import aliases, audit_head, events, record_values
from service.drivers.store import SqlStore
from tests.contract.conftest import OpenStore

NEW = "support@" + "b" * 12


async def set_up(store: SqlStore) -> None:
    """Events 1 to 6: alias created, adapter added, cycle opened, promoted; the cycle and then the alias rolled back."""
    await store.add_alias("support", now=1.0)
    await store.add_adapter(Adapter(NEW, "support", "b" * 64, "c" * 64, 16, 7, 2.0))
    await store.open_cycle("c1", "support", Trigger.DRIFT, reason="drift", evidence={"p": 0.25}, now=3.0, actor="me")
    await store.promote("support", NEW, actor="me", reason="better", now=4.0)
    await store.rollback("support", actor="me", reason="worse", now=5.0)


def tamper(url: str, *statements: sa.Executable) -> None:
    """Change the database as somebody would who has its password."""
    engine = sa.create_engine(url.replace("+aiosqlite", ""), poolclass=sa.NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(statement)


async def test_every_event_is_a_link_of_one_chain(store: SqlStore) -> None:
    await set_up(store)
    chain = (await store.events())[::-1]
    assert [event.id for event in chain] == [1, 2, 3, 4, 5, 6]
    assert [event.previous for event in chain] == [GENESIS, *(event.hash for event in chain[:-1])]
    assert all(event.hash == digest(event, event.previous) for event in chain)
    found = await store.verify_audit()
    assert (found.events, found.head, found.fault) == (6, Link(6, chain[-1].hash), None)


async def test_an_empty_log_is_well(store: SqlStore) -> None:
    found = await store.verify_audit()
    assert (found.events, found.head, found.fault) == (0, Link(), None)


async def test_writers_at_once_make_one_chain(open_one: OpenStore) -> None:
    stores = [await open_one() for _ in range(4)]
    await stores[0].add_alias("support", now=1.0)
    writes = [
        one.add_event(f"note{number}", actor=f"w{n}", message="x", now=float(number), alias="support")
        for number in range(15)
        for n, one in enumerate(stores)
    ]
    health = [one.set_health("support", failures=n, latched=False, now=2.0) for n, one in enumerate(stores, 1)]
    await asyncio.gather(*writes, *health)
    found = await stores[0].verify_audit()
    assert (found.events, found.fault) == (65, None)


async def test_a_write_that_fails_leaves_no_link(store: SqlStore) -> None:
    await set_up(store)
    lease = await store.acquire("controller", "one", ttl_s=9.0, now=1.0)
    with pytest.raises(Conflict):
        await store.promote("support", "base", actor="x", reason="x", now=9.0, fence=lease)
    with pytest.raises(BadRequest):
        await store.add_event("note", actor="me", message="x", now=6.0, evidence={"what": object()})
    await store.add_event("note", actor="me", message="x", now=6.0)
    found = await store.verify_audit()
    assert (found.events, found.fault) == (7, None)


async def test_two_events_cannot_follow_the_same_one(store: SqlStore, store_url: str) -> None:
    await set_up(store)
    third = (await store.events())[3]
    rival = seal(Event(99, 9.0, "note", "x", "x"), Link(2, third.previous))
    with pytest.raises(sa.exc.IntegrityError):
        tamper(store_url, sa.insert(events).values(record_values(events, rival)))


def _event(number: int) -> sa.ColumnElement[bool]:
    return events.c.id == number


def _swapped(one: int, other: int) -> list[sa.Executable]:
    return [
        sa.update(events).where(_event(one)).values(id=999),
        sa.update(events).where(_event(other)).values(id=one),
        sa.update(events).where(_event(999)).values(id=other),
    ]


def _inserted(number: int, previous: str = "f" * 64) -> sa.Executable:
    forged = seal(Event(number, 9.0, "note", "x", "x"), Link(number - 1, previous))
    return sa.insert(events).values(record_values(events, forged))


TAMPERED: dict[str, tuple[list[sa.Executable], int]] = {
    "a message": ([sa.update(events).where(_event(3)).values(message="nothing happened")], 3),
    "an actor": ([sa.update(events).where(_event(4)).values(actor="somebody else")], 4),
    "a time": ([sa.update(events).where(_event(4)).values(at=4.5)], 4),
    "evidence": ([sa.update(events).where(_event(3)).values(evidence={"trigger": "drift", "p": 0.24})], 3),
    "a hash": ([sa.update(events).where(_event(2)).values(hash="0" * 64)], 2),
    "the first removed": ([sa.delete(events).where(_event(1))], 2),
    "one removed": ([sa.delete(events).where(_event(4))], 5),
    "the last removed": ([sa.delete(events).where(_event(6))], 5),
    "all removed": ([sa.delete(events)], 0),
    "two swapped": (_swapped(2, 3), 2),
    "one before all": ([_inserted(0)], 0),
    "one at the end": ([_inserted(7)], 7),
}


@pytest.mark.parametrize(("statements", "where"), TAMPERED.values(), ids=TAMPERED)
async def test_tampering_is_found_where_it_is(
    store: SqlStore, store_url: str, statements: list[sa.Executable], where: int
) -> None:
    await set_up(store)
    tamper(store_url, *statements)
    found = await store.verify_audit()
    assert found.fault is not None
    assert found.event_id == where


async def test_a_log_made_anew_lacks_the_head_that_was_noted(store: SqlStore, store_url: str) -> None:
    """Whoever may write everything can make a whole new chain; only what was noted elsewhere gives that away."""
    await set_up(store)
    noted = (await store.events(limit=1))[0].hash
    await store.add_event("note", actor="me", message="later", now=9.0)
    assert (await store.verify_audit(noted=noted)).fault is None
    rewritten: list[Event] = []
    for event in (await store.events())[::-1]:
        before = Link(event.id - 1, rewritten[-1].hash) if rewritten else Link()
        rewritten.append(seal(Event(event.id, event.at, event.kind, "nobody", event.message, event.alias,
                                    event.cycle_id, event.evidence), before))  # fmt: skip
    tamper(
        store_url,
        sa.delete(events),
        *(sa.insert(events).values(record_values(events, event)) for event in rewritten),
        sa.update(audit_head).values(hash=rewritten[-1].hash),
    )
    assert (await store.verify_audit()).fault is None
    assert "made anew" in str((await store.verify_audit(noted=noted)).fault)


async def test_a_champion_that_no_event_explains(store: SqlStore, store_url: str) -> None:
    await set_up(store)
    tamper(store_url, sa.update(aliases).values(champion="base"))
    assert (await store.verify_audit()).fault == f"support serves base, and the log tells of {NEW}"


async def test_without_its_head_the_log_takes_nothing_more(store: SqlStore, store_url: str) -> None:
    await set_up(store)
    tamper(store_url, sa.delete(audit_head))
    try:
        with pytest.raises(ConfigError, match="audit_head"):
            await store.add_event("note", actor="me", message="x", now=6.0)
        with pytest.raises(ConfigError, match="audit_head"):
            await store.verify_audit()
    finally:
        tamper(store_url, sa.insert(audit_head).values(id=1, event_id=0, hash=GENESIS))


async def test_events_of_a_cycle_and_of_some_kinds(store: SqlStore) -> None:
    await set_up(store)
    assert [event.kind for event in await store.events(cycle_id="c1")] == [
        "alias.rolled_back", "cycle.rolled_back", "cycle.open",
    ]  # fmt: skip
    served = await store.events("support", kinds=("alias.created", "alias.promoted"), limit=None)
    assert [event.kind for event in served] == ["alias.promoted", "alias.created"]


async def test_a_flip_is_linked_to_the_cycle_that_proved_it(store: SqlStore) -> None:
    await store.add_alias("support", now=1.0)
    await store.add_adapter(Adapter(NEW, "support", "b" * 64, "c" * 64, 16, 7, 2.0))
    cycle = await store.open_cycle("c1", "support", Trigger.DRIFT, reason="x", evidence={}, now=3.0, actor="me")
    await store.advance(cycle, CycleState.TRAINING, reason="x", now=4.0, candidate=NEW)
    await store.promote("support", NEW, actor="controller", reason="better", now=20.0)
    assert [event.kind for event in await store.events(cycle_id="c1", limit=1)] == ["alias.promoted"]
    await store.promote("support", "base", actor="me", reason="by hand", now=21.0)
    assert (await store.events(limit=1))[0].cycle_id is None
