"""HTTP/1.1 as engines and what stands before them may speak it, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest

from service.gateway.wire import ConnectionPool, WireError

ASK = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n"
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CLOSE = object()
"""In a script: the engine hangs up here."""


@dataclass
class Scripted:
    """An engine that answers each request with the next part of its script, whatever it was asked."""

    port: int
    connections: int = 0
    asked: list[bytes] = field(default_factory=list)
    pools: list[ConnectionPool] = field(default_factory=list)

    def pool(self, *, idle_s: float = 5.0, scheme: str = "http") -> ConnectionPool:
        url = f"{scheme}://127.0.0.1:{self.port}"
        self.pools.append(ConnectionPool(url, connect_timeout_s=0.3, idle_s=idle_s))
        return self.pools[-1]


@contextlib.asynccontextmanager
async def scripted(*script: Sequence[object]) -> AsyncIterator[Scripted]:
    waiting = list(script)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        engine.connections += 1
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                engine.asked.append(data)
                for part in waiting.pop(0) if waiting else ():
                    if part is CLOSE:
                        return
                    assert isinstance(part, bytes)
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.01)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    engine = Scripted(server.sockets[0].getsockname()[1])
    try:
        yield engine
    finally:
        for pool in engine.pools:
            pool.close()
        server.close()
        await asyncio.sleep(0.02)


async def asked(pool: ConnectionPool) -> tuple[int, bytes]:
    with await pool.ask(ASK, b"{}") as reply:
        return reply.status, await reply.read()


async def poured(pool: ConnectionPool) -> tuple[int, bytes]:
    """The same, taken as it comes; who takes it wants each third piece to wait."""
    parts: list[bytes] = []

    def take(data: bytes) -> bool:
        parts.append(data)
        return len(parts) % 3 != 0

    with await pool.ask(ASK, b"{}") as reply:
        while data := await reply.read_some():
            parts.append(data)
            await reply.pour(take)
        return reply.status, b"".join(parts)


WAYS = pytest.mark.parametrize("way", [asked, poured])

WHOLE = {
    "a length": [LENGTH],
    "byte by byte": [bytes([byte]) for byte in LENGTH],
    "chunks": [CHUNKED, b"2\r\nhe\r\n", b"3\r\nllo\r\n", b"0\r\n\r\n"],
    "chunks with trailers": [CHUNKED, b"5;x=y\r\nhello\r\n0\r\nx: y\r\n\r\n"],
    "ended by the connection": [b"HTTP/1.0 200 OK\r\n\r\nhe", b"llo", CLOSE],
    "after a provisional reply": [b"HTTP/1.1 100 Continue\r\n\r\n", LENGTH],
    "after two of them at once": [b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + LENGTH],
}


@WAYS
@pytest.mark.parametrize("script", WHOLE.values(), ids=WHOLE)
async def test_a_whole_reply_is_read(script, way):
    async with scripted(script) as engine:
        assert await way(engine.pool()) == (200, b"hello")
        assert engine.asked == [ASK + b"{}"]


BROKEN = {
    "before the head": [CLOSE],
    "in the head": [LENGTH[:20], CLOSE],
    "in the body": [LENGTH[:-1], CLOSE],
    "in a chunk": [CHUNKED, b"5\r\nhel", CLOSE],
    "before the last chunk": [CHUNKED, b"5\r\nhello\r\n", CLOSE],
    "after a provisional reply": [b"HTTP/1.1 100 Continue\r\n\r\n", CLOSE],
    "no HTTP": [b"SSH-2.0-OpenSSH_9.9\r\n"],
    "a bad chunk": [CHUNKED, b"zz\r\n"],
    "two lengths": [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello"],
    "a switch of protocols": [b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nxx"],
}


@WAYS
@pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN)
async def test_a_broken_reply_is_an_error_and_its_connection_not_used_again(script, way):
    async with scripted(script, [LENGTH]) as engine:
        pool = engine.pool()
        with pytest.raises(WireError):
            await asyncio.wait_for(way(pool), 5.0)
        assert await asked(pool) == (200, b"hello")
        assert engine.connections == 2


async def test_a_connection_is_used_again():
    async with scripted([LENGTH], WHOLE["chunks"], [LENGTH]) as engine:
        pool = engine.pool()
        for _ in range(3):
            assert await asked(pool) == (200, b"hello")
        assert engine.connections == 1


SPENT = {
    "the engine says so": [LENGTH.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")],
    "the engine hangs up": [LENGTH, CLOSE],
    "more came than was asked for": [LENGTH + LENGTH],
    "more came while idle": [LENGTH, LENGTH],
}


@pytest.mark.parametrize("script", SPENT.values(), ids=SPENT)
async def test_a_spent_connection_is_not_used_again(script):
    async with scripted(script, [LENGTH]) as engine:
        pool = engine.pool()
        for _ in range(2):
            assert await asked(pool) == (200, b"hello")
            await asyncio.sleep(0.05)
        assert engine.connections == 2


async def test_an_engine_that_was_closing_a_kept_connection_is_asked_again_on_a_new_one():
    async with scripted([LENGTH], [CLOSE], [LENGTH]) as engine:
        pool = engine.pool()
        for _ in range(2):
            assert await asked(pool) == (200, b"hello")
        assert engine.connections == 2
        assert len(engine.asked) == 3


KEPT_AND_BROKEN = {
    "a reply that had begun": ([LENGTH], [LENGTH[:20], CLOSE]),
    "a new connection, too": ([LENGTH], [CLOSE], [CLOSE]),
}


@pytest.mark.parametrize("scripts", KEPT_AND_BROKEN.values(), ids=KEPT_AND_BROKEN)
async def test_nothing_is_asked_a_third_time_nor_once_a_reply_has_begun(scripts):
    async with scripted(*scripts, [LENGTH]) as engine:
        pool = engine.pool()
        assert await asked(pool) == (200, b"hello")
        with pytest.raises(WireError):
            await asked(pool)
        assert len(engine.asked) == len(scripts)


async def test_a_connection_idle_for_too_long_is_not_used_again():
    async with scripted([LENGTH], [LENGTH]) as engine:
        pool = engine.pool(idle_s=0.05)
        for _ in range(2):
            assert await asked(pool) == (200, b"hello")
            await asyncio.sleep(0.1)
        assert engine.connections == 2


async def test_what_a_taker_raises_ends_the_reply():
    def refuse(data: bytes) -> bool:
        raise ValueError("not this")

    async with scripted([CHUNKED, b"2\r\nhe\r\n", b"3\r\nllo\r\n", b"0\r\n\r\n"], [LENGTH]) as engine:
        pool = engine.pool()
        with await pool.ask(ASK, b"{}") as reply:
            assert await reply.read_some() == b"he"
            with pytest.raises(ValueError, match="not this"):
                await asyncio.wait_for(reply.pour(refuse), 5.0)
        assert await asked(pool) == (200, b"hello")
        assert engine.connections == 2


async def test_a_reply_that_is_left_unread_is_closed():
    async with scripted([CHUNKED, b"5\r\nhello\r\n"], [LENGTH]) as engine:
        pool = engine.pool()
        with await pool.ask(ASK, b"{}"):
            pass
        assert await asked(pool) == (200, b"hello")
        assert engine.connections == 2


async def test_who_does_not_read_is_not_sent_more():
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"{}")  # who speaks before it is asked is hung up on
        writer.write(CHUNKED)
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
                await writer.drain()
                sent += 65_536

    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    async with server:
        pool = Scripted(server.sockets[0].getsockname()[1]).pool()
        reply = await pool.ask(ASK, b"{}")
        await asyncio.sleep(0.3)
        first = sent
        await asyncio.sleep(0.2)
        assert sent == first  # what the kernel's buffers hold, and no more
        assert len(await reply.read_some()) < 2**20
        assert len(await reply.read(2**24)) >= 2**24
        assert sent > first
        reply.close()


async def test_an_engine_that_is_not_there():
    with pytest.raises(WireError):
        await ConnectionPool("http://127.0.0.1:9", connect_timeout_s=1.0, idle_s=1.0).ask(ASK, b"{}")


async def test_a_secure_engine_is_spoken_to_in_tls_and_given_up_in_time():
    async with scripted() as engine:
        with pytest.raises(WireError, match=r"within 0\.3 s"):
            await engine.pool(scheme="https").ask(ASK, b"{}")
        assert engine.asked[0][:1] == b"\x16"  # a handshake


async def test_a_large_body_is_sent_whole():
    body = b"x" * 3_000_000
    got = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            got.set_result(await reader.readexactly(len(body)))
            writer.write(LENGTH)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        pool = Scripted(server.sockets[0].getsockname()[1]).pool()
        with await pool.ask(b"POST / HTTP/1.1\r\ncontent-length: 3000000\r\n\r\n", body) as reply:
            assert await reply.read() == b"hello"
        assert await got == body


@pytest.mark.parametrize("turns", range(4))
async def test_who_stood_still_itself_does_not_take_the_engine_for_silent(turns: int) -> None:
    async with scripted([LENGTH]) as engine:
        asking = asyncio.create_task(asked(engine.pool()))
        for _ in range(turns):
            await asyncio.sleep(0)
        time.sleep(0.5)  # noqa: ASYNC251  # longer than the time to connect
        assert await asking == (200, b"hello")
