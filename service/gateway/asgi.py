"""The few ASGI moves that the data plane needs, without a framework between the socket and the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from service.core.errors import BadRequest, TooLarge, TrimtabError

Headers = Sequence[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
SSE = (b"content-type", b"text/event-stream; charset=utf-8")


class ClientGone(Exception):
    """The client went away before the reply was complete; there is nobody to answer."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first value of a header; `name` in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body; TooLarge as soon as it is known to exceed `limit` bytes, ClientGone if it never ends."""
    declared = header(scope, b"content-length")
    if declared is not None:
        if not declared.isdigit():
            raise BadRequest("The content-length header is not a number.")
        if int(declared) > limit:
            raise _too_large(limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    parts = [body]
    size = len(body)
    while message["type"] == "http.request" and message.get("more_body", False):
        if size > limit:
            raise _too_large(limit)
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
    if message["type"] == "http.disconnect":
        raise ClientGone
    if size > limit:
        raise _too_large(limit)
    return body if len(parts) == 1 else b"".join(parts)


async def send_bytes(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """One whole reply."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def send_json(send: Send, status: int, content: Any, headers: Headers = ()) -> None:
    await send_bytes(send, status, msgspec.json.encode(content), [JSON, *headers])


async def send_error(send: Send, error: TrimtabError, headers: Headers = ()) -> None:
    """An error in OpenAI's shape, with the headers that tell a client what to do about it."""
    await send_bytes(send, error.status, msgspec.json.encode(error.body()), [JSON, *error_headers(error), *headers])


def error_headers(error: TrimtabError) -> list[tuple[bytes, bytes]]:
    extra = []
    if error.retry_after_s is not None:
        extra.append((b"retry-after", b"%d" % max(1, round(error.retry_after_s))))
    if error.status == 401:
        extra.append((b"www-authenticate", b"Bearer"))
    return extra


def error_event(error: TrimtabError) -> bytes:
    """An error as a server-sent event: what a stream that has begun can still say."""
    return b"data: " + msgspec.json.encode(error.body()) + b"\n\n"


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is over the limit of {limit} bytes; shorten it or raise gateway.max_body_bytes.")
