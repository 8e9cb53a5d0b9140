"""A streamed reply from an engine to its client: whole events, less what was asked for on the side.

Once a stream has begun, each piece goes from the engine's connection to the client's in the call that brought it: a
future, a turn of the loop and a coroutine for each cost more than all that is done to it. Only where the client is to
be waited for does the stream go by `send`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from starlette.types import Send

from service.core.errors import EngineFailed, TrimtabError
from service.gateway.asgi import SSE
from service.gateway.ask import Ask
from service.gateway.exchange import Exchange
from service.gateway.guard import Guard
from service.gateway.hiding import hide_empty, hide_logprobs, hide_usage
from service.gateway.upstream import EngineLost
from service.gateway.wire import EngineConnection, WireError

MAX_EVENT_BYTES = 4 * 2**20

WRITE = "trimtab.write"
"""The ASGI extension that writes a piece of a reply's body at once; `Connection` provides it."""

Write = Callable[[bytes], bool]
"""Takes a piece of a body; False if more should wait for `send`."""


@dataclass(slots=True)
class Client:
    """Whom a reply goes to."""

    send: Send
    guard: Guard
    write: Write | None
    """None under a server without the extension `WRITE`."""


class Events:
    """Pieces of a stream as they come, cut into whole events and stripped for the client."""

    def __init__(self, exchange: Exchange, ask: Ask[Any]) -> None:
        assert exchange.reader is not None
        self.done = False
        """Whether the stream's last event has come."""

        self._exchange = exchange
        self._feed = exchange.reader.feed
        self._ended = exchange.dialect.ended
        self._hides_logprobs = exchange.measured and not ask.wants_logprobs
        self._hides_usage = not ask.wants_usage
        self._rest = b""

    def take(self, data: bytes) -> bytes:
        """What the client gets now that this has come; often nothing.

        Raises:
            EngineFailed: an event has no end.
        """
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if not data.endswith(b"\n\n"):
            end = data.rfind(b"\n\n") + 2
            data, self._rest = (data[:end], data[end:]) if end > 1 else (b"", data)
            if len(self._rest) > MAX_EVENT_BYTES:
                raise EngineFailed("The engine sent an event without end.")
            if not data:
                return b""
        self._exchange.last_at = perf_counter()
        self._feed(data)
        if self._ended(data):
            self.done = True
        shown = hide_empty(hide_logprobs(data)) if self._hides_logprobs else data
        return hide_usage(shown) if self._hides_usage else shown


async def pass_stream(exchange: Exchange, ask: Ask[Any], reply: EngineConnection, client: Client) -> None:
    """Pass on the whole reply; `exchange` says how far it got.

    Raises:
        EngineLost: the engine broke off before the client got a byte.
        EngineFailed: it broke off later, or what it sent is not a stream of events.
    """
    events = Events(exchange, ask)
    send, write = client.send, client.write

    def relay(data: bytes) -> bool:
        assert write is not None
        shown = events.take(data)
        return write(shown) if shown else True

    try:
        while data := await reply.read_some():
            shown = events.take(data)
            if exchange.last_at is None:
                continue
            if not exchange.head_sent:
                await _begin(exchange, send)
            if shown:
                await send({"type": "http.response.body", "body": shown, "more_body": True})
            if write is not None:
                await reply.pour(relay)
    except WireError as error:
        raise _broken(exchange) from error
    if not events.done:
        raise _broken(exchange)
    exchange.status = 200
    client.guard.complete()
    await send({"type": "http.response.body", "body": b""})


async def _begin(exchange: Exchange, send: Send) -> None:
    exchange.first_at = exchange.last_at
    exchange.head_sent = True
    headers = [SSE, (b"cache-control", b"no-cache"), *exchange.headers()]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


def _broken(exchange: Exchange) -> TrimtabError:
    if exchange.head_sent:
        return EngineFailed("The engine broke off in the middle of its answer; ask again.")
    return EngineLost("The engine broke off its answer; retry shortly.")
