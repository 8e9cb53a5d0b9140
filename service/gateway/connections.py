"""A client's connection has a time for each thing that it makes the gateway wait for, and a size for what is not body.

uvicorn has neither: a head that never ends, a body of one byte a second or a reply that nobody reads would hold their
connections, and what is buffered for them, for ever. `Server` looks at all connections once a second, so that a
request pays nothing for it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.core.errors import BadRequest, TrimtabError
from service.gateway.guard import GONE
from service.gateway.streaming import WRITE

MAX_HEAD_BYTES = 64 * 1024
_UPGRADES = (b"\r\nUpgrade:", b"\r\nupgrade:")
_FRAMING = 8
"""Bytes of chunk framing and trailers allowed for each byte of a body; a chunk of one byte has five."""

MIN_BODY_BYTES_S = 8 * 1024
"""A body that comes at least this fast has all the time it needs: uploads of adapters may take minutes."""


LINGER_S = 1.0
"""Who has been refused may send on for so long: closing at once would reset the connection under the refusal."""


class Wait(StrEnum):
    """What the client makes us wait for."""

    HEAD = "head"
    BODY = "body"
    TAKE = "take"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that a client has: for a request's head, for its body, to take more of a reply."""

    head_s: float
    body_s: float
    take_s: float


class RequestTimeout(TrimtabError):
    """The request did not arrive in time."""

    status, type, code = 408, "invalid_request_error", "request_timeout"


class HeadTooLarge(TrimtabError):
    """The request line and headers are longer than any client's need."""

    status, type, code = 431, "invalid_request_error", "headers_too_large"


class Connection(HttpToolsProtocol):
    """uvicorn's connection, which knows when its client dawdles."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._overhead = 0
        self._body_bytes = 0
        self._taken = 0
        self._refused = False
        self._waiting: tuple[Wait, object] | None = None
        self._since = 0.0

    def dawdles(self, now: float, patience: Patience) -> bool:
        """Whether its client has kept us waiting for too long; to be asked about once a second."""
        if self.parser is None:  # lost in the meantime
            return False
        waiting = self._waits_for()
        if waiting != self._waiting:
            self._waiting, self._since = waiting, now
            return False
        return waiting is not None and now - self._since > self._limit_s(waiting[0], patience)

    def end(self, patience: Patience) -> None:
        """End the connection, whose client `dawdles`."""
        assert self._waiting is not None
        match self._waiting[0]:
            case Wait.TAKE:
                self.transport.abort()
            case Wait.LEAVE:
                self.transport.close()
            case Wait.HEAD:
                self._end_unfinished("head", patience.head_s)
            case Wait.BODY:
                self._end_unfinished("body", patience.body_s)

    def _limit_s(self, wait: Wait, patience: Patience) -> float:
        match wait:
            case Wait.TAKE:
                return patience.take_s
            case Wait.LEAVE:
                return LINGER_S
            case Wait.HEAD:
                return patience.head_s
            case Wait.BODY:
                return patience.body_s + self._body_bytes / MIN_BODY_BYTES_S

    def _waits_for(self) -> tuple[Wait, object] | None:
        """What is awaited now, with something that changes when the client makes progress."""
        cycle = self.cycle
        if self.flow.write_paused or self.transport.is_closing():
            return Wait.TAKE, self._taken
        if self._refused:
            return Wait.LEAVE, None
        if cycle is None or cycle.response_complete:
            # Between requests uvicorn's own timer runs, until the next byte comes.
            return (Wait.HEAD, id(cycle)) if self.timeout_keep_alive_task is None else None
        if cycle.more_body and not self.flow.read_paused and not self.pipeline:
            return Wait.BODY, id(cycle)
        return None

    def _end_unfinished(self, part: str, limit_s: float) -> None:
        if self._overhead == 0 and self.cycle is None:
            self.transport.close()
            return
        self._refuse(RequestTimeout(f"The request's {part} did not arrive within {limit_s:g} s; send it at once."))

    def _refuse(self, error: TrimtabError) -> None:
        """A reply to what never became a request; the connection closes after it."""
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.abort()
            return
        body = msgspec.json.encode(error.body())
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[error.status] + head + body)
        self._leave()

    def _leave(self) -> None:
        """Say no more, but read on until the client hangs up or `LINGER_S` is over (RFC 9112, 9.6)."""
        earlier = bool(self.pipeline)  # whose reply is still to be written
        if earlier or self.transport.is_closing() or not self.transport.can_write_eof():
            self.transport.close()
            return
        self._refused = True
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write_eof()
        self.flow.resume_reading()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._gone: asyncio.Future[None] = self.loop.create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._gone.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._overhead > MAX_HEAD_BYTES + _FRAMING * self._body_bytes:
            if not self.transport.is_closing():
                self._refuse(HeadTooLarge(f"The headers are over the limit of {MAX_HEAD_BYTES} bytes; send fewer."))
            return
        self._overhead += len(data)
        super().data_received(_without_upgrade(data) if self._in_head else data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {GONE: self._gone, WRITE: self.write_chunk}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._overhead = self._body_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._overhead -= len(body)
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = True
        self._overhead = 0
        super().on_message_complete()
        if not self.pipeline:  # uvicorn reads on when asked for more, which nobody is once a body is whole
            self.flow.resume_reading()

    def write_chunk(self, body: bytes) -> bool:
        """A piece of a reply without content-length, written at once; whether the client takes more right now."""
        if self.transport.is_closing():
            return False
        self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        return not self.flow.write_paused

    def resume_writing(self) -> None:
        self._taken += 1
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self._refuse(BadRequest("This is not an HTTP/1.1 request.", code="invalid_http"))


def _without_upgrade(data: bytes) -> bytes:
    """Java's HTTP client offers HTTP/2 with each first request, and uvicorn would lose that request's body."""
    if _UPGRADES[0] not in data and _UPGRADES[1] not in data:
        return data
    head, end, body = data.partition(b"\r\n\r\n")
    for offer in _UPGRADES:
        head = head.replace(offer, b"\r\nx-ignored:")
    return head + end + body
