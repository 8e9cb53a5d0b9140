"""Requests at a steady rate whatever the replies (an open loop), as a process of its own with little work a request.

    python -m tests.service.gateway.offer PORT RATE SECONDS

Prints one JSON object, `Offered`. A request waits for no other: each takes an idle connection or a new one.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, dataclass, field
from statistics import quantiles
from time import perf_counter
from typing import cast

import uvloop

from tests.service.gateway.live import CHAT, raw_request

REFUSALS = {429, 503}


@dataclass
class Offered:
    """`good_s` and `refused_s`: seconds until the reply; `good_in_time`: the good ones before the end of the load;
    `other`: replies that are neither a 200 nor a refusal that tells when to come again."""

    seconds: float
    sent: int = 0
    good_s: list[float] = field(default_factory=list)
    good_in_time: int = 0
    refused_s: list[float] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    @property
    def goodput(self) -> float:
        return self.good_in_time / self.seconds

    @property
    def refused_p99_s(self) -> float:
        return p99(self.refused_s)

    def __str__(self) -> str:
        return (
            f"{self.sent / self.seconds:.0f}/s offered, {self.goodput:.0f}/s answered (p99 {p99(self.good_s):.2f} s), "
            f"{len(self.refused_s)} refused (p99 {self.refused_p99_s * 1e3:.1f} ms), {len(self.other)} others"
        )


def p99(values: list[float]) -> float:
    return quantiles(values, n=100)[98] if len(values) > 1 else 0.0


class Client(asyncio.Protocol):
    """One connection; `idle` gets it back after each complete reply."""

    def __init__(self, offered: Offered, idle: list[Client], end: float) -> None:
        self._offered = offered
        self._idle = idle
        self._end = end
        self._buffer = b""
        self._sent_at: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._idle:
            self._idle.remove(self)
        if self._sent_at is not None:
            self._offered.other.append(f"no reply: {exc}")

    def send(self, request: bytes, at: float) -> None:
        self._sent_at = at
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        head = self._buffer[:end].lower()
        at = head.find(b"content-length:")
        if end < 0 or len(self._buffer) < end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0]):
            return
        assert self._sent_at is not None
        now = perf_counter()
        status = int(head[9:12])
        if status == 200:
            self._offered.good_s.append(now - self._sent_at)
            self._offered.good_in_time += now < self._end
        elif status in REFUSALS and b"\r\nretry-after: " in head:
            self._offered.refused_s.append(now - self._sent_at)
        else:
            self._offered.other.append(self._buffer.decode("latin-1"))
        self._sent_at, self._buffer = None, b""
        self._idle.append(self)


async def offer(port: int, rate: float, seconds: float) -> Offered:
    loop = asyncio.get_running_loop()
    request = raw_request(CHAT)
    offered = Offered(seconds)
    idle: list[Client] = []
    started = perf_counter()

    async def connect_and_send(at: float) -> None:
        try:
            _, client = await loop.create_connection(
                lambda: Client(offered, idle, started + seconds), "127.0.0.1", port
            )
        except OSError as error:
            offered.other.append(f"no connection: {error}")
            return
        client.send(request, at)

    connecting = set()
    while (now := perf_counter()) < started + seconds:
        while offered.sent < (now - started) * rate:
            offered.sent += 1
            if idle:
                idle.pop().send(request, now)
            else:
                connecting.add(task := loop.create_task(connect_and_send(now)))
                task.add_done_callback(connecting.discard)
        await asyncio.sleep(0.002)
    for _ in range(600):
        if len(offered.good_s) + len(offered.refused_s) + len(offered.other) >= offered.sent:
            break
        await asyncio.sleep(0.05)
    return offered


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(offer(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))))))
