"""How each API words what is not a reply: its keys, its errors, the end of its streams. Each SDK knows its own only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.types import Scope

from service.core.errors import TrimtabError
from service.gateway.asgi import error_event, header
from service.gateway.ask import Kind

_DONE = b"data: [DONE]\n\n"
_STOPPED = b"event: message_stop\n"
_FINISHED = (b"event: response.completed\n", b"event: response.incomplete\n", b"event: response.failed\n")

_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """`key` is the value of an Authorization header, wherever the client put it; `ended` tells whether events that were
    read hold the stream's last one; `id_header` is a second name for the request's id."""

    key: Callable[[Scope], str | None]
    error: Callable[[TrimtabError, str], Any]
    event: Callable[[TrimtabError, str], bytes]
    ended: Callable[[bytes], bool]
    id_header: bytes | None = None


def _authorization(scope: Scope) -> str | None:
    value = header(scope, b"authorization")
    return value.decode("latin-1") if value else None


def any_key(scope: Scope) -> str | None:
    """Also where Anthropic's clients put it."""
    key = header(scope, b"x-api-key")
    return _authorization(scope) or (f"Bearer {key.decode('latin-1')}" if key else None)


def _openai_error(error: TrimtabError, request_id: str) -> Any:
    return error.body()


def _openai_event(error: TrimtabError, request_id: str) -> bytes:
    return error_event(error)


def _responses_event(error: TrimtabError, request_id: str) -> bytes:
    """As the API's own `error` event, and with the `error` that makes the SDK raise."""
    told = error.body()["error"]
    fields = {"type": "error", "code": error.code, "message": error.message, "param": error.param, "error": told}
    return b"event: error\ndata: " + msgspec.json.encode(fields) + b"\n\n"


def _anthropic_error(error: TrimtabError, request_id: str) -> Any:
    """Anthropic's shape; `param` and `code` are there as in all our errors."""
    told = {**error.body()["error"], "type": _ANTHROPIC_TYPES.get(error.status, "api_error")}
    return {"type": "error", "error": told, "request_id": request_id}


def _anthropic_event(error: TrimtabError, request_id: str) -> bytes:
    return b"event: error\ndata: " + msgspec.json.encode(_anthropic_error(error, request_id)) + b"\n\n"


def _done(events: bytes) -> bool:
    return events.endswith(_DONE)


def _stopped(events: bytes) -> bool:
    return _last(events).startswith(_STOPPED)


def _finished(events: bytes) -> bool:
    return _last(events).startswith(_FINISHED)


def _last(events: bytes) -> bytes:
    return events[:-2].rpartition(b"\n\n")[2]


OPENAI = Dialect(_authorization, _openai_error, _openai_event, _done)
_RESPONSES = Dialect(_authorization, _openai_error, _responses_event, _finished)
_ANTHROPIC = Dialect(any_key, _anthropic_error, _anthropic_event, _stopped, b"request-id")

DIALECTS: Mapping[Kind, Dialect] = {
    Kind.CHAT: OPENAI,
    Kind.COMPLETION: OPENAI,
    Kind.EMBEDDINGS: OPENAI,
    Kind.RESPONSES: _RESPONSES,
    Kind.MESSAGES: _ANTHROPIC,
    Kind.COUNT_TOKENS: _ANTHROPIC,
}
