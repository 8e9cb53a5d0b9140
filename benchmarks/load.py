"""A small HTTP/1.1 load generator on raw sockets: little enough work of its own that it measures the other side."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, cast
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Load:
    """Latencies in seconds, sorted; `failed` counts replies other than 200."""

    latencies: tuple[float, ...]
    elapsed_s: float
    failed: int

    def quantile(self, q: float) -> float:
        return self.latencies[min(len(self.latencies) - 1, math.ceil(q * len(self.latencies)) - 1)]

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.elapsed_s


async def run_load(url: str, body: dict[str, Any], *, connections: int, seconds: float, key: str | None = None) -> Load:
    """Closed loop: each connection sends its next request when the reply to its last one is complete."""
    parts = urlsplit(url)
    payload = json.dumps(body).encode()
    secret = f"Authorization: Bearer {key}\r\n" if key else ""
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n{secret}"
        f"Content-Length: {len(payload)}\r\n\r\n"
    )
    started = perf_counter()
    clients = [_Client(head.encode() + payload, started + seconds) for _ in range(connections)]
    loop = asyncio.get_running_loop()
    for client in clients:
        await loop.create_connection(partial(next, iter((client,))), parts.hostname or "127.0.0.1", parts.port or 80)
    await asyncio.gather(*(client.over for client in clients))
    latencies = sorted(latency for client in clients for latency in client.latencies)
    return Load(tuple(latencies), perf_counter() - started, sum(client.failed for client in clients))


class _Client(asyncio.Protocol):
    def __init__(self, request: bytes, until: float) -> None:
        self._request = request
        self._until = until
        self._buffer = b""
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
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.find(b"content-length:")
        if at >= 0:
            length = int(head[at + 15 :].split(b"\r\n", 1)[0])
            complete = len(self._buffer) >= end + 4 + length
        else:
            complete = self._buffer.endswith(b"0\r\n\r\n")
        if complete:
            self._received(ok=head.startswith(b"http/1.1 200"))

    def _send(self) -> None:
        assert self._transport is not None
        self._buffer = b""
        self._sent_at = perf_counter()
        self._transport.write(self._request)

    def _received(self, *, ok: bool) -> None:
        now = perf_counter()
        self.latencies.append(now - self._sent_at)
        self.failed += not ok
        if now < self._until:
            self._send()
            return
        assert self._transport is not None
        self.over.set_result(None)
        self._transport.close()
