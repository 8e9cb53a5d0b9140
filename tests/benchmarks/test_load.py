"""The load generators and the stub engine, against each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.load import Streams, run_load
from benchmarks.stub_engine import Pace, StubProtocol

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@asynccontextmanager
async def stub(pace: Pace) -> AsyncIterator[str]:
    server = await asyncio.get_running_loop().create_server(lambda: StubProtocol(pace), "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/chat/completions"
    finally:
        server.close()


async def test_as_many_requests_are_sent_as_asked_for() -> None:
    async with stub(Pace(4, 0.0)) as url:
        load = await run_load(url, BODY, connections=3, requests=20)
    assert len(load.latencies) == 20
    assert load.failed == 0
    assert load.quantile(0.5) <= load.quantile(0.99) <= load.latencies[-1]


async def test_streamed_replies_are_read_to_their_end() -> None:
    async with stub(Pace(4, 0.001)) as url:
        load = await run_load(url, {**BODY, "stream": True}, connections=2, requests=6)
    assert len(load.latencies) == 6
    assert min(load.latencies) >= 0.004


async def test_a_gap_is_counted_for_every_event_but_the_first_of_a_stream() -> None:
    streams = Streams()
    async with stub(Pace(10, 0.002)) as url:
        opened = await streams.open(url, BODY, streams=5, over_s=0.01)
        async with asyncio.timeout(5):
            while len(streams.gaps) < 5 * 10:  # noqa: ASYNC110 - 10 tokens and the end make 11 events
                await asyncio.sleep(0.01)
        streams.close()
    assert opened == 5
    assert len(streams.gaps) == 5 * 10


async def test_a_stream_that_never_begins_is_not_counted_as_open() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    streams = Streams()
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/chat/completions"
    assert await streams.open(url, BODY, streams=3, over_s=0.0) == 0
    server.close()


async def test_the_pace_changes_on_demand() -> None:
    pace = Pace(4, 0.0)
    async with stub(pace) as url:
        asked = url.replace("/v1/chat/completions", "/pace")
        await run_load(asked, {"tokens": 7, "gap_ms": 20}, connections=1, requests=1)
    assert (pace.tokens, pace.gap_s) == (7, 0.02)
