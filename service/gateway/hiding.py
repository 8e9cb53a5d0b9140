"""Takes out of a reply what we asked of the engine and the client did not: byte surgery, no parsing in the common case.

Why it is right for any content: inside a JSON string a quote is always preceded by a backslash, so `,"logprobs":{` can
only be the start of a member named `logprobs`. vLLM writes `finish_reason` right after it, so the value is taken to end
there; and only if what lies between is a JSON object by itself is it cut, since an object that starts at a given byte
can end at one byte only. Anything written in another way takes the slow path: parsed, changed, written again.
"""

from __future__ import annotations

from typing import Any

import msgspec

from service.core.errors import EngineFailed

_MEMBER = b',"logprobs":{'
_END = b'},"finish_reason":'
_NULLED = b',"logprobs":null'
_NO_CHOICES = b',"choices":[]'
_EMPTY = b'"delta":{},"logprobs":null,"finish_reason":null'
_NAME = b'"logprobs"'
_NULL = b'"logprobs":null'
_DATA = b"data: "
_GAP = b"\n\n"


class _Any(msgspec.Struct):
    """Any JSON object: its members are checked for syntax and skipped."""


_object = msgspec.json.Decoder(_Any)


def hide_logprobs(data: bytes) -> bytes:
    """A whole JSON reply, or whole server-sent events, with every choice's `logprobs` null."""
    start = data.find(_MEMBER)
    if start >= 0:
        parts = []
        at = 0
        while start >= 0:
            end = data.find(_END, start)
            if end < 0:
                return _slowly(data)
            try:
                _object.decode(data[start + len(_MEMBER) - 1 : end + 1])
            except ValueError:
                return _slowly(data)
            parts.append(data[at:start])
            parts.append(_NULLED)
            at = end + 1
            start = data.find(_MEMBER, at)
        parts.append(data[at:])
        data = b"".join(parts)
    if data.count(_NAME) != data.count(_NULL):
        return _slowly(data)
    return data


def hide_usage(events: bytes) -> bytes:
    """Whole server-sent events without the one that carries usage only."""
    found = events.find(_NO_CHOICES)
    return events if found < 0 else _without(events, found)


def hide_empty(events: bytes) -> bytes:
    """Without events that carried log-probabilities only: vLLM sends none such where nobody asks for them."""
    found = events.find(_EMPTY)
    while found >= 0:
        shorter = _without(events, found)
        found = shorter.find(_EMPTY) if len(shorter) < len(events) else -1
        events = shorter
    return events


def _without(events: bytes, found: int) -> bytes:
    """Cut the event around this byte."""
    start = events.rfind(_GAP, 0, found)
    start = 0 if start < 0 else start + len(_GAP)
    end = events.find(_GAP, found)
    return events[:start] + events[end + len(_GAP) :] if end >= 0 else events


def _slowly(data: bytes) -> bytes:
    if data.startswith(b"{"):
        return _null_logprobs(data)
    return _GAP.join(_event(event) for event in data.split(_GAP))


def _event(event: bytes) -> bytes:
    if not event.startswith(_DATA) or _NAME not in event:
        return event
    return _DATA + _null_logprobs(event[len(_DATA) :])


def _null_logprobs(text: bytes) -> bytes:
    try:
        reply: Any = msgspec.json.decode(text)
    except ValueError as error:
        raise EngineFailed("The engine's reply is not valid JSON; its log says more.") from error
    choices = reply.get("choices") if isinstance(reply, dict) else None
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and "logprobs" in choice:
            choice["logprobs"] = None
    return msgspec.json.encode(reply)
