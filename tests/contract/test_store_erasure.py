"""What leaves the store for good: a user's traffic wherever it is on its way, and what is too old."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest
from sqlalchemy import select

from service.core.records import DriftCheck, ImportedRow, Seen
from service.drivers.schema import captures, shadow_replies
from service.drivers.schema import feedback as feedback_table
from service.drivers.store import SqlStore
from tests.contract.test_store_traffic import NEW, capture, feedback, ids, shadow

ANN, BOB = "user:aaaa", "user:bbbb"


async def told(store: SqlStore, i: int) -> tuple[bool, bool, bool]:
    """Whether capture, feedback and shadow reply of a request are there."""
    tables = (captures, feedback_table, shadow_replies)
    one_row = [select(table.c.request_id).where(table.c.request_id == f"r{i}").exists() for table in tables]
    async with store._db.read() as connection:
        found = (await connection.execute(select(*one_row))).one()
    return bool(found[0]), bool(found[1]), bool(found[2])


async def add(store: SqlStore, i: int, source: str | None, **changes: object) -> None:
    await store.add_captures([capture(i, source=source, tags={"team": "a"}, **changes)])
    await store.add_feedback([feedback(i, i + 0.5, expected="x")])
    await store.add_shadow_replies([shadow(i)])


async def test_all_of_a_user_goes_and_nothing_of_others(store: SqlStore) -> None:
    for i, source in enumerate([ANN, BOB, None, ANN]):
        await add(store, i, source)
    erased = await store.erase(ANN, actor="ada", now=50.0)
    assert (erased.captures, erased.feedback, erased.shadow_replies) == (2, 2, 2)
    assert set(erased.request_ids) == {ANN, "r0", "r3"}
    assert [await told(store, i) for i in range(4)] == [
        (False,) * 3, (True,) * 3, (True,) * 3, (False,) * 3,
    ]  # fmt: skip
    assert await ids(store, since=-1.0, tag="team=a") == ["r1", "r2"]
    (event,) = await store.events(kinds=["traffic.erased"])
    assert (event.actor, event.evidence["captures"]) == ("ada", 2)
    assert (await store.verify_audit()).fault is None


async def test_what_arrives_late_of_the_erased_is_dropped(store: SqlStore) -> None:
    await store.erase(ANN, actor="ada", now=50.0)
    await add(store, 1, ANN)
    await add(store, 2, BOB)
    await add(store, 60, ANN)
    assert [await told(store, i) for i in (1, 2, 60)] == [(False,) * 3, (True,) * 3, (True,) * 3]
    # Its capture told whose it was; so feedback that comes later still is known to be of the erased.
    await store.add_feedback([feedback(1, 70.0, expected="later")])
    assert await told(store, 1) == (False,) * 3
    assert set((await store.erase(ANN, actor="ada", now=55.0)).request_ids) == {ANN, "r1"}


async def test_an_erasure_may_be_repeated_and_then_tells_the_same_requests(store: SqlStore) -> None:
    await add(store, 1, ANN)
    first = await store.erase(ANN, actor="ada", now=50.0)
    again = await store.erase(ANN, actor="ada", now=51.0)
    assert (again.request_ids, again.captures) == (first.request_ids, 0)


async def test_one_request_goes_whenever_it_comes(store: SqlStore) -> None:
    await add(store, 1, ANN)
    await add(store, 2, ANN)
    assert (await store.erase("r1", actor="ada", now=0.0)).captures == 1
    await add(store, 1, ANN)
    assert [await told(store, i) for i in (1, 2)] == [(False,) * 3, (True,) * 3]


async def test_captures_that_are_being_added_during_an_erasure_go_too(store: SqlStore, open_one) -> None:  # type: ignore[no-untyped-def]
    others = [await open_one() for _ in range(3)]

    async def write(other: SqlStore, first: int) -> None:
        for i in range(first, first + 40):
            await other.add_captures([capture(i, source=ANN, at=1.0), capture(1000 + i, source=BOB, at=1.0)])

    writing = [asyncio.create_task(write(other, 100 * n)) for n, other in enumerate(others)]
    await asyncio.sleep(0.05)
    await store.erase(ANN, actor="ada", now=50.0)
    await asyncio.gather(*writing)
    assert await ids(store, limit=1000) == sorted(f"r{1000 + 100 * n + i}" for n in range(3) for i in range(40))


async def test_example_texts_of_checks_since_then_go(store: SqlStore) -> None:
    topic = {"words": ["visa"], "examples": ["do i need a visa"], "share": 0.4}
    for at in (5.0, 15.0):
        check = DriftCheck(f"c{at}", "support", at, "DRIFTED", [], ["why"], 1, 1, topics=[topic])
        await store.add_drift_check(check)
    await add(store, 10, ANN)
    await store.erase(ANN, actor="ada", now=50.0)
    newer, older = await store.drift_checks("support")
    assert [topic["examples"] for topic in (*older.topics, *newer.topics)] == [["do i need a visa"], []]
    assert newer.topics[0]["words"] == ["visa"]


async def test_who_was_erased_can_be_asked(store: SqlStore) -> None:
    await store.erase(ANN, actor="ada", now=50.0)
    await store.erase("r9", actor="ada", now=50.0)
    asked = [
        Seen("r1", ANN, 49.0),
        Seen("r2", ANN, 51.0),
        Seen("r3", BOB, 1.0),
        Seen("r4", None, 1.0),
        Seen("r9", BOB, 1.0),
    ]
    assert await store.erased(asked) == {"r1", "r9"}
    assert await store.erased([]) == frozenset()


@pytest.mark.parametrize(("before", "keep", "left"), [
    (-math.inf, None, [1, 2, 3, 4, 5]),
    (2.0, None, [3, 4, 5]),
    (-math.inf, 2, [4, 5]),
    (4.0, 3, [5]),
    (-math.inf, 9, [1, 2, 3, 4, 5]),
])  # fmt: skip
async def test_the_oldest_expire_with_all_that_belongs_to_them(
    store: SqlStore, before: float, keep: int | None, left: list[int]
) -> None:
    for i in range(1, 6):
        await add(store, i, ANN)
    await add(store, 7, ANN, alias="other", at=0.5)
    assert await store.expire("support", before=before, keep=keep, limit=100) == 5 - len(left)
    assert [i for i in range(1, 6) if await told(store, i) == (True,) * 3] == left
    assert [i for i in range(1, 6) if any(await told(store, i))] == left
    assert await told(store, 7) == (True,) * 3


async def test_no_more_than_asked_expire_at_once(store: SqlStore) -> None:
    await store.add_captures([capture(i) for i in range(10)])
    assert await store.expire("support", before=100.0, keep=None, limit=4) == 4
    assert await ids(store, since=-1.0) == [f"r{i}" for i in range(4, 10)]


async def test_strays_expire_and_what_has_its_request_stays(store: SqlStore) -> None:
    await store.add_captures([capture(1)])
    await store.add_feedback([feedback(i, i + 0.5, rating=1.0) for i in (1, 2, 30)])
    await store.add_shadow_replies([shadow(i, NEW) for i in (1, 2, 30)])
    assert await store.expire_strays(before=10.0, limit=10) == 2
    assert [await told(store, i) for i in (1, 2, 30)] == [(True,) * 3, (False,) * 3, (False, True, True)]


async def test_a_keys_requests_and_imported_rows_go_too_and_stay_away(store: SqlStore) -> None:
    await add(store, 1, ANN, key_id="k1")
    await add(store, 2, BOB, key_id="k2")
    assert (await store.erase("key:k1", actor="ada", now=50.0)).captures == 1
    await add(store, 1, ANN, key_id="k1")
    assert [await told(store, i) for i in (1, 2)] == [(False,) * 3, (True,) * 3]
    row = ImportedRow("i1", "support", 1.0, 2.0, [{"role": "user", "content": "hi"}], "hello", "import:old.csv")
    other = replace(row, id="i2", source="import:new.csv")
    assert await store.add_imported([row, other]) == 2
    assert set((await store.erase("import:old.csv", actor="ada", now=50.0)).request_ids) == {"import:old.csv", "i1"}
    assert await store.add_imported([row, other]) == 0
    assert [one.id for one in await store.imported("support", since=0.0, limit=9)] == ["i2"]
