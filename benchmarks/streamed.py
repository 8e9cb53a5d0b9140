"""One streamed chat completion over a raw socket: what came, when, and whose it says it is."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from time import perf_counter
from typing import Any, cast
from urllib.parse import urlsplit

_HEAD_END = b"\r\n\r\n"
_DONE = b"data: [DONE]"


@dataclass(frozen=True, slots=True)
class Streamed:
    """A reply as its client saw it; times are of `perf_counter`, in seconds.

    `adapter` is the gateway's word in `x-trimtab-adapter`, `models` are the engine's in the events. `arrivals` has a
    time for each piece of the network's that held events. `fault` is empty for a whole reply.
    """

    sent_at: float
    arrivals: tuple[float, ...]
    adapter: str
    models: frozenset[str]
    text: str
    tokens: int
    fault: str = ""

    @property
    def first_s(self) -> float:
        """Time to the first token, seconds."""
        return self.arrivals[0] - self.sent_at

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """Of each piece after the first: when it came, and how long after the one before, seconds."""
        pairs = zip(self.arrivals, self.arrivals[1:], strict=False)
        return [(late, late - early) for early, late in pairs]


async def ask(url: str, body: dict[str, Any]) -> Streamed:
    """Send one streamed request to the service at `url`; a failure is a reply with a `fault`."""
    parts = urlsplit(url)
    payload = json.dumps({**body, "stream": True}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    sent_at = perf_counter()
    try:
        client = _Client(head.encode() + payload)
        await loop.create_connection(lambda: client, parts.hostname or "127.0.0.1", parts.port or 80)
        await client.over
    except OSError as error:
        return Streamed(sent_at, (sent_at,), "", frozenset(), "", 0, f"{type(error).__name__}: {error}")
    return _read(sent_at, tuple(client.arrivals), bytes(client.received))


class _Client(asyncio.Protocol):
    def __init__(self, request: bytes) -> None:
        self._request = request
        self.received = bytearray()
        self.arrivals: list[float] = []
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        if b"data: {" in data:
            self.arrivals.append(perf_counter())
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)


def _read(sent_at: float, arrivals: tuple[float, ...], received: bytes) -> Streamed:
    head, _, rest = received.partition(_HEAD_END)
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    events = _dechunked(rest) if headers.get("transfer-encoding") == "chunked" else rest
    chunks = [json.loads(line[6:]) for line in events.split(b"\n\n") if line.startswith(b"data: {")]
    choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    fault = ""
    if " 200 " not in lines[0]:
        fault = f"{lines[0]}: {events[:200].decode(errors='replace')}"
    elif any("error" in chunk for chunk in chunks):
        fault = next(str(chunk["error"]) for chunk in chunks if "error" in chunk)
    elif _DONE not in events or not arrivals:
        fault = "the stream broke off"
    return Streamed(
        sent_at,
        arrivals or (sent_at,),
        headers.get("x-trimtab-adapter", ""),
        frozenset(chunk["model"] for chunk in chunks if "model" in chunk),
        text,
        sum(bool(choice["delta"].get("content")) for choice in choices),
        fault,
    )


def _dechunked(body: bytes) -> bytes:
    parts = []
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size or b"0", 16)
        if not length:
            break
        parts.append(body[:length])
        body = body[length + 2 :]
    return b"".join(parts)
