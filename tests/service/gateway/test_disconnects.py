"""Clients that leave: the engine's work ends with them, wherever their request was. Gateway and stub are processes."""

from __future__ import annotations

import asyncio

import pytest

from tests.service.gateway.live import CHAT, STREAM, Process, eventually, post, raw_request, session, world

pytestmark = pytest.mark.soak

WAVE = 100
PLACES = 80
"""Fewer than a wave, so that some leave from the queue."""


async def knock(gateway: Process, body: dict, read: bytes | None) -> asyncio.StreamWriter:
    """Send a request and, where `read` is given, read until it has come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(raw_request(body))
    await writer.drain()
    if read is not None:
        await reader.readuntil(read)
    return writer


@pytest.mark.parametrize(
    ("body", "read", "first_ms"),
    [(CHAT, None, 60_000), (STREAM, None, 60_000), (STREAM, b'"x"', 0)],
    ids=["unary", "before-the-first-token", "after-the-first-token"],
)
async def test_clients_that_leave_leave_nothing_behind(tmp_path, scale, soaking, body, read, first_ms):
    waves = scale(1, 10)
    knobs = {"first_ms": first_ms, "gap_ms": 50, "tokens": 10_000}
    limits = {"max_in_flight": PLACES if read is None else WAVE}
    worst_s = 0.0
    async with world(tmp_path, knobs=knobs, gateway=limits) as (gateway, (engine,)):

        async def busy() -> bool:
            running = (await engine.get("/stats"))["running"]
            return running + await gateway.metric("trimtab_requests_queued") == WAVE

        async def idle() -> bool:
            return (await engine.get("/stats"))["running"] == 0

        for _ in range(waves):
            clients = await asyncio.gather(*(knock(gateway, body, read) for _ in range(WAVE)))
            await eventually(busy, 10.0)
            for client in clients:
                client.transport.abort()
            worst_s = max(worst_s, await eventually(idle, 1.0 if soaking else 10.0))

        async def all_told() -> bool:
            return await gateway.metric("trimtab_requests_total", code="499") == waves * WAVE

        await eventually(all_told, 5.0)
        stats = await engine.get("/stats")
        print(f"{waves * WAVE} left: 0 running after at most {worst_s:.2f} s, {stats['counts']['aborted']} aborted")
        assert not stats["served"]
        assert await gateway.metric("trimtab_requests_in_flight") == 0
        assert await gateway.metric("trimtab_requests_queued") == 0
        if read is not None:
            async with session() as client:
                short = await post(client, gateway.url, {**CHAT, "max_tokens": 1})
            assert short.status == 200
