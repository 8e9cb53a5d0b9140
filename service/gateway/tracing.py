"""W3C Trace Context (https://www.w3.org/TR/trace-context/): a valid `traceparent` travels on to the engine."""

from __future__ import annotations

import re

from starlette.types import Scope

from service.gateway.asgi import header

_PARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_MAX_STATE = 512
_PRINTABLE = re.compile(r"[\x20-\x7e]*")


def trace_headers(scope: Scope) -> dict[str, str]:
    """The client's trace context as headers for the engine; empty when it is absent or malformed, as the norm asks."""
    parent = header(scope, b"traceparent")
    if parent is None or not _PARENT.fullmatch(parent):
        return {}
    told = {"traceparent": parent.decode("latin-1")}
    state = (header(scope, b"tracestate") or b"").decode("latin-1")
    if state and len(state) <= _MAX_STATE and _PRINTABLE.fullmatch(state):
        told["tracestate"] = state
    return told
