"""The store goes away under traffic and comes back: nobody who was known notices, and no record is lost or doubled."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import sqlalchemy as sa
from alembic import command

from service.control.keys import new_key
from service.core.records import EngineView, Scope
from service.drivers.store import open_store
from service.drivers.upgrade import migration_config
from tests.contract.conftest import emptied
from tests.service.gateway.live import CHAT, Process, engine, eventually, gateway, session

pytestmark = pytest.mark.soak


@pytest.fixture
async def keyed(migrated_postgres: str, tmp_path: Path) -> AsyncIterator[tuple[Process, str]]:
    """A gateway that wants keys, over PostgreSQL and a stub engine, and a key that it knows."""
    url = emptied(migrated_postgres)
    key, secret = new_key("app", [Scope.INFER, Scope.METRICS], time.time())
    async with engine(tmp_path) as stub:
        store = await open_store(url)
        await store.add_alias("support", now=0.0)
        await store.report_engines([EngineView(stub.url, True, frozenset(), time.time(), "base")])
        await store.add_key(key)
        await store.close()
        sections: dict[str, Any] = {"store": {"url": url}, "gateway": {"keys_poll_s": 0.5}}
        (tmp_path / "state").mkdir()
        async with gateway(tmp_path / "state", [stub], server={"require_keys": True}, **sections) as serving:
            yield serving, secret


async def ask(client: aiohttp.ClientSession, serving: Process, secret: str) -> tuple[int, str]:
    headers = {"authorization": f"Bearer {secret}"}
    async with client.post(f"{serving.url}/v1/chat/completions", json=CHAT, headers=headers) as reply:
        await reply.read()
        return reply.status, reply.headers.get("x-request-id", "")


def memory_mib(serving: Process) -> float:
    """Of the gateway and the process that ships its captures."""
    parent = psutil.Process(serving.process.pid)
    return sum(one.memory_info().rss for one in (parent, *parent.children())) / 2**20


async def test_a_store_that_is_away_costs_known_clients_nothing(
    keyed: tuple[Process, str], migrated_postgres: str, postgres_server: Any, scale: Any
) -> None:
    serving, secret = keyed
    requests, away_s = scale(300, 10_000), scale(4.0, 600.0)
    asked: list[tuple[int, str]] = []
    async with session() as client:
        asked += [await ask(client, serving, secret) for _ in range(50)]
        await arrived(migrated_postgres, len(asked))
        before = memory_mib(serving)
        os.kill(postgres_server.get_pid(), signal.SIGINT)
        began = time.monotonic()
        while len(asked) < requests:
            due = away_s * (len(asked) - 50) / (requests - 50)
            await asyncio.sleep(max(0.0, began + due - time.monotonic()))
            asked.append(await ask(client, serving, secret))
        stranger = (await ask(client, serving, "tt-of-a-stranger"))[0]
        grown = memory_mib(serving) - before
        postgres_server.ensure_postgres_running()

        async def known_as_unknown() -> bool:
            return (await ask(client, serving, "tt-of-a-stranger"))[0] == 401

        back = await eventually(known_as_unknown, 30.0)
    stored = await arrived(migrated_postgres, len(asked))
    print(f"store away for {away_s:.0f} s: {len(stored)} of {len(asked)} captures, {grown:.1f} MiB more, "
          f"keys known again after {back:.1f} s")  # fmt: skip
    assert {status for status, _ in asked} == {200}
    assert stranger == 503
    assert sorted(stored) == sorted(request_id for _, request_id in asked)
    assert grown <= 32.0


async def test_an_upgrade_of_the_schema_costs_known_clients_nothing(
    keyed: tuple[Process, str], migrated_postgres: str, tmp_path: Path, scale: Any
) -> None:
    serving, secret = keyed
    asked: list[tuple[int, str]] = []
    async with session() as client:
        asked += [await ask(client, serving, secret) for _ in range(50)]
        await arrived(migrated_postgres, len(asked))
        upgrade = asyncio.create_task(asyncio.to_thread(upgrade_again, migrated_postgres, scale(2.0, 20.0)))
        while not upgrade.done():
            asked.append(await ask(client, serving, secret))
            await asyncio.sleep(0.02)
        await upgrade
    stored = await arrived(migrated_postgres, len(asked))
    print(f"schema upgraded under traffic: {len(stored)} of {len(asked)} captures")
    assert len(asked) >= 80
    assert {status for status, _ in asked} == {200}
    assert sorted(stored) == sorted(request_id for _, request_id in asked)
    assert refused(tmp_path) == []


def refused(folder: Path) -> list[Path]:
    return list(folder.rglob("dead-letters.jsonl"))


def upgrade_again(url: str, hold_s: float) -> None:
    """From the schema before captures were partitioned, in one transaction, whose locks are held as long as if many
    rows had to be gone through."""
    writer = sa.create_engine(url)
    config = migration_config()
    with writer.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0030")
        command.upgrade(config, "head")
        time.sleep(hold_s)
    writer.dispose()


async def arrived(url: str, count: int) -> list[str]:
    """The stored requests, once there are as many and no more have come for a moment."""
    reader = sa.create_engine(url)

    def read() -> list[str]:
        with reader.connect() as connection:
            return list(connection.execute(sa.text("SELECT request_id FROM captures")).scalars())

    async def all_there() -> bool:
        return len(await asyncio.to_thread(read)) >= count

    await eventually(all_there, 60.0, every_s=0.2)
    await asyncio.sleep(0.5)
    found = await asyncio.to_thread(read)
    reader.dispose()
    return found
