"""PostgreSQL's captures by week: rows go where they belong, room is made ahead, empty weeks leave."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import sqlalchemy as sa
from alembic import command

from service.drivers.partitions import AHEAD, WEEK_S, weeks_ahead
from service.drivers.store import SqlStore, open_store
from service.drivers.upgrade import migration_config, upgrade_store
from tests.contract.test_store_traffic import capture, feedback, ids

pytestmark = pytest.mark.filterwarnings("ignore:Skipped unsupported reflection")


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[SqlStore]:
    store = await open_store(url, migrate=True)
    try:
        yield store
    finally:
        await store.close()


def places(url: str) -> dict[str, str]:
    """In which table each request lies."""
    return dict(rows(url, "SELECT request_id, tableoid::regclass::text FROM captures"))


def tables(url: str) -> set[str]:
    found = rows(url, "SELECT inhrelid::regclass::text, 0 FROM pg_inherits WHERE inhparent = 'captures'::regclass")
    return {name for name, _ in found}


def rows(url: str, query: str) -> list[tuple[str, str]]:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        found = [tuple(row) for row in connection.execute(sa.text(query))]
    engine.dispose()
    return found  # type: ignore[return-value]


async def test_captures_lie_by_week_and_are_read_as_one(empty_postgres: str) -> None:
    now = time.time()
    async with opened(empty_postgres) as store:
        await store.tend_partitions(now=now)
        await store.tend_partitions(now=now)
        weeks = weeks_ahead(now)
        assert tables(empty_postgres) == {"captures_before", "captures_rest", *(week.table for week in weeks[2:])}
        later = [weeks[2].start, weeks[3].end - 0.001, weeks[4].end]
        await store.add_captures(
            [capture(1), capture(2, at=now), *(capture(3 + i, at=at) for i, at in enumerate(later))]
        )
        assert places(empty_postgres) == {
            "r1": "captures_before", "r2": "captures_before", "r3": weeks[2].table, "r4": weeks[3].table,
            "r5": "captures_rest",
        }  # fmt: skip
        await store.add_captures([capture(4, at=later[1])])
        await store.add_feedback([feedback(4, now, rating=1.0)])
        assert await ids(store) == ["r1", "r2", "r3", "r4", "r5"]
        assert await ids(store, newest=True, limit=2) == ["r4", "r5"]
        assert await ids(store, labelled_only=True) == ["r4"]
        assert (await store.erase("r4", actor="ada", now=now)).captures == 1
        assert await ids(store) == ["r1", "r2", "r3", "r5"]


async def test_weeks_that_are_over_leave_once_they_are_empty(empty_postgres: str) -> None:
    now = time.time()
    async with opened(empty_postgres) as store:
        await store.tend_partitions(now=now)
        kept, emptied = weeks_ahead(now)[2:4]
        await store.add_captures([capture(1, at=kept.start), capture(2, at=emptied.start)])
        long_after = weeks_ahead(now)[AHEAD].end + 2 * WEEK_S
        await store.tend_partitions(now=emptied.end + WEEK_S)
        assert {kept.table, emptied.table} < tables(empty_postgres), "a week may still get late captures"
        await store.expire("support", before=-1.0, keep=1, limit=10)
        await store.tend_partitions(now=long_after)
        assert emptied.table in tables(empty_postgres)
        assert {kept.table, "captures_before"}.isdisjoint(tables(empty_postgres))
        assert await ids(store) == ["r2"]
        await store.add_captures([capture(3, at=kept.start)])
        assert places(empty_postgres)["r3"] == "captures_rest"
        assert await ids(store) == ["r3", "r2"]


async def test_a_week_that_the_rest_holds_stays_there(empty_postgres: str) -> None:
    now = time.time()
    async with opened(empty_postgres) as store:
        _, _, mine, other, _ = weeks_ahead(now)
        await store.add_captures([capture(1, at=mine.start + 1.0)])
        for _ in range(2):
            await store.tend_partitions(now=now)
        assert mine.table not in tables(empty_postgres)
        assert other.table in tables(empty_postgres)
        assert await ids(store) == ["r1"]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_captures_of_the_schema_before_stay_with_their_tags(
    kind: str, tmp_path: object, request: pytest.FixtureRequest
) -> None:
    url = (
        f"sqlite+aiosqlite:///{tmp_path}/trimtab.db" if kind == "sqlite" else request.getfixturevalue("empty_postgres")
    )
    now = time.time()
    async with opened(url) as store:
        await store.tend_partitions(now=now)
        later = weeks_ahead(now)[3].start
        await store.add_captures([capture(1, tags={"team": "a"}), capture(2, at=later, tags={"team": "a"})])
    engine = sa.create_engine(url.replace("+aiosqlite", ""))
    with engine.begin() as connection:
        config = migration_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0030")
        assert set(connection.execute(sa.text("SELECT request_id FROM captures")).scalars()) == {"r1", "r2"}
    engine.dispose()
    upgrade_store(url)
    async with opened(url) as store:
        await store.add_captures([capture(1), capture(3)])
        assert await ids(store) == ["r1", "r3", "r2"]
        assert await ids(store, tag="team=a") == ["r1", "r2"]
        await store.erase("r1", actor="ada", now=now)
        assert await ids(store, tag="team=a") == ["r2"]
