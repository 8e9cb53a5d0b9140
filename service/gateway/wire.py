"""HTTP/1.1 to one engine on pooled connections: a request in one write, its reply as it comes.

A general client costs more than all else that the gateway does to a request (docs/decisions/0004). This one leaves out
what the path to an engine never needs: redirects, cookies, compression, upgrades, pipelining. llhttp reads the replies.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections import deque
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import cast
from urllib.parse import urlsplit

import httptools

_READ_AHEAD = 2**16
"""Bytes of a reply that may wait for their reader: what a client who stops reading makes us hold."""

_LARGE_BODY = 2**16
"""From here on, joining head and body costs more than a second write."""

_GRACE_S = 0.1
"""Where this process itself stood still, the time to connect is over before it sees that it has been connected."""

_FRAMING = {b"content-length", b"transfer-encoding"}


class WireError(OSError):
    """The connection failed or could not be made, or what came on it is not HTTP."""


class EngineConnection(asyncio.Protocol):
    """One connection and, from `ask` on, the reply on it. Leaving it as a context closes it unless it was released."""

    def __init__(self, pool: ConnectionPool) -> None:
        self.status = 0
        self.heard = False
        """Whether a byte of the reply to the last request has come."""

        self.idle_since = 0.0
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._parts: deque[bytes] = deque()
        self._ahead = 0
        self._waiter: asyncio.Future[None] | None = None
        self._taker: Callable[[bytes], bool] | None = None
        self._lost: Exception | None = None
        self._head_done = False
        self._complete = True
        self._framed = False
        self._kept = True
        self._paused = False

    async def ask(self, head: bytes, body: bytes = b"") -> None:
        """Send a request; `status` is its reply's once this returns.

        Raises:
            WireError: the connection ended before the reply's head was there.
        """
        assert self._transport is not None
        self.heard = self._complete = self._head_done = self._framed = False
        if len(body) < _LARGE_BODY:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        while not self._head_done:
            await self._more()

    async def read_some(self) -> bytes:
        """What of the reply's body has come since; empty once it is over.

        Raises:
            WireError: the connection ended in the middle of the reply.
        """
        while not self._parts and not self._complete:
            await self._more()
        data = self._come()
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def pour(self, taker: Callable[[bytes], bool]) -> None:
        """Give `taker` what comes of the body in the moment it comes, until it says False or no more will come.

        What it raises is raised here.
        """
        if self._parts or self._complete or self._lost is not None:
            return
        self._taker = taker
        try:
            await self._more()
        finally:
            self._taker = None

    async def read(self, limit: float = math.inf) -> bytes:
        """The rest of the body, or its first bytes: reading ends when `limit` is reached."""
        parts = []
        size = 0
        while size < limit and (data := await self.read_some()):
            parts.append(data)
            size += len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def release(self) -> None:
        """Keep the connection for another request if this one's reply is over, else close it."""
        self._pool.give(self)

    def close(self) -> None:
        """End the connection at once: the engine then stops working on the request."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def usable(self) -> bool:
        """Whether a request can be sent on it."""
        return (
            self._complete
            and self._kept
            and not self._parts
            and self._lost is None
            and self._transport is not None
            and not self._transport.is_closing()
        )

    def __enter__(self) -> EngineConnection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release() if kind is None else self.close()

    async def _more(self) -> None:
        if self._lost is not None:
            raise WireError(f"the engine's connection ended: {self._lost}") from self._lost
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _come(self) -> bytes:
        data = self._parts.popleft() if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._ahead = 0
        return data

    def _pour(self, taker: Callable[[bytes], bool]) -> None:
        try:
            if (not self._parts or taker(self._come())) and not self._complete:
                return
        except Exception as error:
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_exception(error)
        self._taker = None
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._complete:  # nobody asked
            self.close()
            return
        self.heard = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._lost = error
            self.close()
        if self._taker is not None:
            self._pour(self._taker)
            return
        self._wake()
        if self._ahead > _READ_AHEAD and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None and self._head_done and not self._framed:  # RFC 9112, 6.3: such a body ends with its connection
            self._complete = True
        self._lost = self._lost or exc or EOFError("closed by the engine")
        self._wake()

    # What httptools calls.

    def on_message_begin(self) -> None:
        if self._complete:
            raise WireError("more came than was asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in _FRAMING:
            self._framed = True

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._head_done = self.status >= 200
        self._kept = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)
        self._ahead += len(body)

    def on_message_complete(self) -> None:
        self._complete = self._head_done


class ConnectionPool:
    """Connections to one engine, the one used last taken first."""

    def __init__(self, engine: str, *, connect_timeout_s: float, idle_s: float) -> None:
        url = urlsplit(engine)
        secure = url.scheme == "https"
        self._host = url.hostname or ""
        self._port = url.port or (443 if secure else 80)
        self._ssl = ssl.create_default_context() if secure else None
        self._connect_timeout_s = connect_timeout_s
        self._idle_s = idle_s
        self._idle: deque[EngineConnection] = deque()

    async def ask(self, head: bytes, body: bytes = b"") -> EngineConnection:
        """The connection on which the reply to this request has begun; the caller releases or closes it.

        A kept connection that ends without a byte of a reply was most likely being closed by an engine that took it
        for idle, so the request is sent again on a new one (RFC 9112, 9.3.1): what a model says may be asked for twice.

        Raises:
            WireError: the engine could not be reached in time, or the connection ended before the reply's head.
        """
        kept = self._take()
        if kept is not None:
            try:
                return await _asked(kept, head, body)
            except WireError:
                if kept.heard:
                    raise
        return await _asked(await self._connect(), head, body)

    def _take(self) -> EngineConnection | None:
        self._drop_old()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def _connect(self) -> EngineConnection:
        connecting = asyncio.ensure_future(
            asyncio.get_running_loop().create_connection(
                lambda: EngineConnection(self), self._host, self._port, ssl=self._ssl
            )
        )
        try:
            for limit_s in (self._connect_timeout_s, _GRACE_S):
                await asyncio.wait({connecting}, timeout=limit_s)
        except asyncio.CancelledError:
            connecting.add_done_callback(_hang_up)
            connecting.cancel()
            raise
        if not connecting.done():
            connecting.cancel()
            raise WireError(f"no connection within {self._connect_timeout_s:g} s")
        try:
            return connecting.result()[1]
        except OSError as error:
            raise WireError(str(error)) from error

    def give(self, connection: EngineConnection) -> None:
        """Take back a connection; one that cannot be used again is closed."""
        if connection.usable:
            connection.idle_since = monotonic()
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close the idle ones."""
        while self._idle:
            self._idle.pop().close()

    def _drop_old(self) -> None:
        oldest = monotonic() - self._idle_s
        while self._idle and self._idle[0].idle_since < oldest:
            self._idle.popleft().close()


async def _asked(connection: EngineConnection, head: bytes, body: bytes) -> EngineConnection:
    try:
        await connection.ask(head, body)
    except BaseException:
        connection.close()
        raise
    return connection


def _hang_up(connecting: asyncio.Future[tuple[asyncio.Transport, EngineConnection]]) -> None:
    """Nobody waits for the connection any more."""
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result()[0].abort()
