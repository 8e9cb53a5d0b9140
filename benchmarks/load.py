"""Load generators on raw sockets: little enough work of their own that they measure the other side."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from time import perf_counter
from typing import Any, cast
from urllib.parse import urlsplit

_EVENT = b"data:"
_LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Load:
    """Latencies in seconds, sorted; `failed` counts replies other than 200."""

    latencies: tuple[float, ...]
    elapsed_s: float
    failed: int

    def quantile(self, q: float) -> float:
        return quantile(self.latencies, q)

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.elapsed_s


def quantile(values: Sequence[float], q: float) -> float:
    """Of sorted values: the smallest that at least a share `q` of them does not exceed."""
    return values[min(len(values) - 1, max(0, math.ceil(q * len(values)) - 1))]


async def run_load(
    url: str,
    body: dict[str, Any],
    *,
    connections: int,
    seconds: float = math.inf,
    requests: int | None = None,
    key: str | None = None,
) -> Load:
    """Closed loop: each connection sends its next request when the reply to its last one is complete.

    It ends after `seconds` or `requests`, whichever comes first; each connection sends one request at least.
    """
    started = perf_counter()
    number = count(connections)

    def more() -> bool:
        return perf_counter() < started + seconds and (requests is None or next(number) < requests)

    clients = [_Client(_request(url, body, key), more) for _ in range(connections)]
    await _connect(url, clients)
    await asyncio.gather(*(client.over for client in clients))
    latencies = sorted(latency for client in clients for latency in client.latencies)
    return Load(tuple(latencies), perf_counter() - started, sum(client.failed for client in clients))


class Streams:
    """Many streamed replies at once; `gaps` holds the seconds between two events of a stream, one for each event."""

    def __init__(self) -> None:
        self.gaps: list[float] = []
        self._streams: list[_Stream] = []

    async def open(
        self, url: str, body: dict[str, Any], *, streams: int, over_s: float, key: str | None = None, wait_s: float = 15
    ) -> int:
        """Ask for the streams, evenly over `over_s`; how many had their first event within `wait_s` more."""
        request = _request(url, {**body, "stream": True}, key)
        self._streams = [_Stream(request, self.gaps) for _ in range(streams)]
        started = perf_counter()
        for number, stream in enumerate(self._streams):
            await asyncio.sleep(started + over_s * number / streams - perf_counter())
            await _connect(url, [stream])
        await asyncio.wait([stream.begun for stream in self._streams], timeout=wait_s)
        return sum(stream.begun.done() and stream.begun.result() for stream in self._streams)

    def close(self) -> None:
        for stream in self._streams:
            stream.close()


async def _connect(url: str, protocols: Sequence[asyncio.Protocol]) -> None:
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    for protocol in protocols:
        await loop.create_connection(partial(_same, protocol), parts.hostname or "127.0.0.1", parts.port or 80)


def _same(protocol: asyncio.Protocol) -> asyncio.Protocol:
    return protocol


def _request(url: str, body: dict[str, Any], key: str | None) -> bytes:
    parts = urlsplit(url)
    payload = json.dumps(body).encode()
    secret = f"Authorization: Bearer {key}\r\n" if key else ""
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n{secret}"
        f"Content-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


class _Client(asyncio.Protocol):
    def __init__(self, request: bytes, more: Callable[[], bool]) -> None:
        self._request = request
        self._more = more
        self._buffer = b""
        self._body_at = 0
        self._ends_at: int | None = None
        self._ok = False
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None
        self.latencies: list[float] = []
        self.failed = 0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(ConnectionError("The server closed the connection."))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._body_at == 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].lower()
            at = head.find(b"content-length:")
            self._body_at = end + 4
            self._ends_at = self._body_at + int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else None
            self._ok = head.startswith(b"http/1.1 200")
        if self._ends_at is not None:
            complete = len(self._buffer) >= self._ends_at
        else:
            complete = self._buffer.endswith(_LAST_CHUNK)
            self._buffer = self._buffer[-len(_LAST_CHUNK) :]
        if complete:
            self._received()

    def _send(self) -> None:
        assert self._transport is not None
        self._buffer = b""
        self._body_at = 0
        self._sent_at = perf_counter()
        self._transport.write(self._request)

    def _received(self) -> None:
        self.latencies.append(perf_counter() - self._sent_at)
        self.failed += not self._ok
        if self._more():
            self._send()
            return
        assert self._transport is not None
        self.over.set_result(None)
        self._transport.close()


class _Stream(asyncio.Protocol):
    """Counts events by their prefix and times the reads that brought them: two in one read have no gap between them."""

    def __init__(self, request: bytes, gaps: list[float]) -> None:
        self._request = request
        self._gaps = gaps
        self._tail = b""
        self._last_at = 0.0
        self._transport: asyncio.Transport | None = None
        self.begun: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """Whether events come."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.begun.done():
            self.begun.set_result(False)

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        found = (self._tail + data).count(_EVENT)
        self._tail = data[1 - len(_EVENT) :]
        if not found:
            return
        if self.begun.done():
            self._gaps.append(now - self._last_at)
        else:
            self.begun.set_result(True)
        self._gaps.extend([0.0] * (found - 1))
        self._last_at = now

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
