"""Keys, leases, secrets, and what a store says when it cannot serve."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from service.core.errors import ConfigError, Conflict, NotFound, Unavailable
from service.core.records import Key, Scope
from service.drivers import database
from service.drivers.store import SqlStore, open_store

KEY = Key(
    "k1", "app", "a" * 64, frozenset({Scope.INFER, Scope.FEEDBACK}), 1.0, requests_per_minute=60, tokens_per_minute=9000
)


async def test_keys_are_added_listed_and_revoked_once(store: SqlStore) -> None:
    await store.add_key(KEY)
    assert await store.keys() == [KEY]
    for clash in (KEY, Key("k2", "other", "a" * 64, frozenset(), 2.0)):
        with pytest.raises(Conflict):
            await store.add_key(clash)
    await store.revoke_key("k1", now=5.0)
    await store.revoke_key("k1", now=6.0)
    assert [key.revoked_at for key in await store.keys()] == [5.0]
    with pytest.raises(NotFound):
        await store.revoke_key("none", now=5.0)


async def test_a_secret_is_made_once_for_every_process(open_one) -> None:  # type: ignore[no-untyped-def]
    stores = [await open_one() for _ in range(4)]
    found = await asyncio.gather(*(store.secret("request-ids") for store in stores))
    assert len(set(found)) == 1
    assert len(found[0]) == 32
    assert await stores[0].secret("other") != found[0]


async def test_a_lease_is_renewed_by_its_holder_and_taken_only_when_expired(store: SqlStore) -> None:
    first = await store.acquire("controller", "one", ttl_s=10.0, now=100.0)
    assert first is not None
    assert (first.epoch, first.expires_at) == (1, 110.0)
    renewed = await store.acquire("controller", "one", ttl_s=10.0, now=105.0)
    assert renewed is not None
    assert (renewed.epoch, renewed.expires_at) == (1, 115.0)
    assert await store.acquire("controller", "two", ttl_s=10.0, now=114.9) is None
    taken = await store.acquire("controller", "two", ttl_s=10.0, now=115.0)
    assert taken is not None
    assert (taken.holder, taken.epoch) == ("two", 2)
    assert await store.acquire("controller", "one", ttl_s=10.0, now=116.0) is None
    assert await store.acquire("elsewhere", "one", ttl_s=10.0, now=116.0) is not None


async def test_a_dead_holder_whose_clock_was_ahead_is_replaced_after_a_lease_of_our_time(open_one) -> None:  # type: ignore[no-untyped-def]
    ahead, behind = await open_one(), await open_one()
    for now in (100.0, 105.0, 110.0, 115.0, 120.0, 125.0):
        assert await ahead.acquire("controller", "ahead", ttl_s=10.0, now=now + 3600.0) is not None
        assert await behind.acquire("controller", "behind", ttl_s=10.0, now=now) is None
    assert await behind.acquire("controller", "behind", ttl_s=10.0, now=134.9) is None
    taken = await behind.acquire("controller", "behind", ttl_s=10.0, now=135.0)
    assert taken is not None
    assert (taken.epoch, taken.expires_at) == (2, 145.0)
    found = await ahead.acquire("controller", "ahead", ttl_s=10.0, now=3735.0)
    assert found is not None
    assert found.epoch == 3


async def test_of_many_that_want_the_lease_one_gets_it(open_one) -> None:  # type: ignore[no-untyped-def]
    stores = [await open_one() for _ in range(4)]
    for now, epoch in ((100.0, 1), (200.0, 2)):
        found = await asyncio.gather(
            *(store.acquire("c", f"{i}-{now}", ttl_s=9.0, now=now) for i, store in enumerate(stores))
        )
        assert [lease.epoch for lease in found if lease] == [epoch]


async def test_a_fenced_write_keeps_the_next_holder_out_until_it_is_done(open_one) -> None:  # type: ignore[no-untyped-def]
    one, two = await open_one(), await open_one()
    lease = await one.acquire("controller", "one", ttl_s=1.0, now=100.0)
    async with one._db.write(lease):
        taking = asyncio.create_task(two.acquire("controller", "two", ttl_s=9.0, now=200.0))
        done, _ = await asyncio.wait({taking}, timeout=0.3)
        assert not done
    taken = await taking
    assert taken is not None
    assert taken.epoch == 2


async def test_a_store_answers_a_ping(store: SqlStore) -> None:
    await store.ping()


async def test_lost_connections_are_made_anew(postgres_server: Any, migrated_postgres: str) -> None:
    store = await open_store(migrated_postgres)
    await store.ping()
    postgres_server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    await store.ping()
    await store.close()


async def test_a_server_that_is_away_is_unavailable() -> None:
    with pytest.raises(Unavailable, match=r"check store\.url"):
        await open_store("postgresql+psycopg://nobody:secret@127.0.0.1:1/none")


async def test_a_store_that_another_process_keeps_locked_is_unavailable(
    migrated_sqlite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "locked.db"
    shutil.copy(migrated_sqlite, path)
    monkeypatch.setattr(database, "_BUSY_TIMEOUT_MS", 50)
    store = await open_store(f"sqlite+aiosqlite:///{path}")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"):
        await store.add_alias("support", now=1.0)
    assert await store.aliases() == []
    other.execute("COMMIT")
    other.close()
    await store.add_alias("support", now=1.0)
    await store.close()


async def test_a_write_whose_caller_is_cut_off_leaves_no_lock(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_BUSY_TIMEOUT_MS", 200)
    await store.add_alias("support", now=1.0)
    for number in range(30):
        writing = asyncio.create_task(store.set_health("support", failures=number % 7, latched=False, now=2.0))
        await asyncio.sleep(number / 5000)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await store.add_event("note", actor="me", message="x", now=3.0)
    assert (await store.verify_audit()).fault is None


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("nonsense", "not a database URL"),
        ("mysql+aiomysql://host/db", "cannot start with 'mysql"),
        ("sqlite+aiosqlite://", "names no file"),
    ],
)
async def test_a_wrong_url_is_a_configuration_error(url: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        await open_store(url)
