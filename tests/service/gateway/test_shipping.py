"""The process that takes captures to the store: it may be killed, and it outlives a killed gateway by what is left."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3

import psutil

from tests.service.gateway.live import CHAT, Process, eventually, post, session, world


def shippers(gateway: Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(gateway.process.pid).children()
        return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return []


def stored(tmp_path) -> set[str]:
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "trimtab.db")) as store:
        return {request_id for (request_id,) in store.execute("SELECT request_id FROM captures")}


async def test_a_shipper_that_is_killed_again_and_again_loses_nothing(tmp_path):
    async with world(tmp_path) as (serving, _), session() as client:
        asked: set[str] = set()
        for _ in range(3):
            for reply in await asyncio.gather(*(post(client, serving.url, CHAT) for _ in range(40))):
                asked.add(reply.headers["x-request-id"])
            await eventually(lambda: _true(bool(shippers(serving))), 30.0)
            shippers(serving)[0].send_signal(signal.SIGKILL)
        await eventually(lambda: _true(stored(tmp_path) == asked), 30.0)
        assert await serving.metric("trimtab_captures_dropped_total") == 0
    assert not list((tmp_path / "state" / "spool").iterdir())


async def test_what_a_killed_gateway_wrote_arrives_without_another(tmp_path):
    async with world(tmp_path) as (serving, _), session() as client:
        await eventually(lambda: _true(bool(shippers(serving))), 30.0)
        (shipper,) = shippers(serving)
        asked = {(await post(client, serving.url, CHAT)).headers["x-request-id"] for _ in range(20)}
        await asyncio.sleep(0.2)  # several times as long as a record waits for the disk
        serving.signal(signal.SIGKILL)
        await serving.process.wait()
        await eventually(lambda: _true(stored(tmp_path) == asked), 30.0)
        await eventually(lambda: _true(not shipper.is_running()), 30.0)
    assert not list((tmp_path / "state" / "spool").iterdir())


async def _true(value: bool) -> bool:
    return value
