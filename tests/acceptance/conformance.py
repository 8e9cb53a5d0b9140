"""How a reply through the gateway may differ from vLLM's own. Every difference has a name, and docs/conformance.md says
why it is there; what has no name is a defect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import httpx


class Difference(StrEnum):
    MORE_HEADERS = "more-headers"
    NO_CORS = "no-cors"
    REQUEST_IDS = "request-ids"
    NO_FINGERPRINT = "no-fingerprint"
    ADAPTER_NAMES = "adapter-names"
    ERROR_WORDS = "error-words"
    UNKNOWN_PARAMETERS = "unknown-parameters"
    LIMITS = "limits"
    OURS_TO_SET = "ours-to-set"
    NOTHING_STORED = "nothing-stored"
    NO_ENGINE_TOOLS = "no-engine-tools"
    TEXT_ONLY = "text-only"
    NO_CODE = "no-code"
    EMBEDDED_TEXTS = "embedded-texts"
    MODEL_CARDS = "model-cards"
    ROUTES = "routes"


ANYWHERE = {Difference.MORE_HEADERS, Difference.NO_CORS, Difference.REQUEST_IDS, Difference.NO_FINGERPRINT}

OUR_HEADERS = {"x-request-id", "request-id", "x-trimtab-adapter", "cache-control"}
HOP_HEADERS = {"date", "server", "content-length", "transfer-encoding", "connection"}
VOLATILE = {"id", "created", "created_at", "completed_at", "item_id", "call_id", "signature", "sequence_number"}
PIECES = {
    "content",
    "text",
    "arguments",
    "partial_json",
    "delta",
    "logprobs",
    "tokens",
    "token_logprobs",
    "top_logprobs",
}
PIECES |= {"text_offset"}
"""In an event these are pieces: how many tokens an event carries depends on how busy the engine is, and so whether one
ends in the middle of a character and has no text yet."""


@dataclass(frozen=True)
class Reply:
    """`events` of a stream, each with its name and its data; else one nameless event. A stream may have but one: what a
    busy engine has not yet sent it sends together."""

    status: int
    headers: dict[str, str]
    events: tuple[tuple[str, Any], ...]
    streamed: bool = False

    @property
    def body(self) -> Any:
        return self.events[0][1]


def read(reply: httpx.Response) -> Reply:
    headers = {name.lower(): value for name, value in reply.headers.items() if name.lower() not in HOP_HEADERS}
    if not headers.get("content-type", "").startswith("text/event-stream"):
        try:
            return Reply(reply.status_code, headers, (("", reply.json()),))
        except ValueError:
            return Reply(reply.status_code, headers, (("", reply.text),))
    assert reply.text.endswith("\n\n")
    events = [event.rpartition("data: ") for event in reply.text.split("\n\n") if event]
    return Reply(
        reply.status_code, headers,
        tuple((name, data if data == "[DONE]" else json.loads(data)) for name, _, data in events), streamed=True,
    )  # fmt: skip


def differences(direct: Reply, through: Reply) -> set[str]:
    """Names of differences; a sentence for one that has none."""
    found = set(_headers(direct, through))
    if through.status >= 400:
        if through.status != direct.status:
            found.add(f"status {direct.status} → {through.status}")
        elif through.body != direct.body:
            found.add(Difference.ERROR_WORDS)
        found |= set(_error_shape(through.body))
        return found
    if direct.status != through.status:
        return found | {f"status {direct.status} → {through.status}"}
    if '"chatcmpl-req_' in json.dumps(through.events) or '"cmpl-req_' in json.dumps(through.events):
        found.add(Difference.REQUEST_IDS)
    if "system_fingerprint" in json.dumps(direct.events) and "system_fingerprint" not in json.dumps(through.events):
        found.add(Difference.NO_FINGERPRINT)
    for which in (outline, pieces):
        ours, theirs = which(through), which(direct)
        if ours != theirs:
            found.add(f"{which.__name__}:\n  vLLM    {theirs}\n  gateway {ours}")
    return found


def outline(reply: Reply) -> dict[int, list[Any]]:
    """What each choice's events look like, without pieces of text and what changes from call to call; equal neighbours
    once."""
    found: dict[int, list[Any]] = {}
    for name, data in reply.events:
        told = found.setdefault(_choice(data) if reply.streamed else 0, [])
        for part in _parted(data) if reply.streamed else (data,):
            masked = (name, _masked(part, reply.streamed))
            if not told or told[-1] != masked:
                told.append(masked)
    return found


def pieces(reply: Reply) -> dict[str, Any]:
    """The pieces of a stream, put together by where they were found."""
    found: dict[str, Any] = {}
    if reply.streamed:
        for name, data in reply.events:
            for path, piece in _pieces(data, f"{name}{_choice(data)}"):
                found[path] = found[path] + piece if path in found else piece
    return found


def _headers(direct: Reply, through: Reply) -> Iterator[str]:
    extra, missing = through.headers.keys() - direct.headers.keys(), direct.headers.keys() - through.headers.keys()
    if extra & OUR_HEADERS:
        yield Difference.MORE_HEADERS
    if "vary" in missing:
        yield Difference.NO_CORS
    for name in sorted(extra - OUR_HEADERS):
        yield f"the gateway adds the header {name}"
    for name in sorted(missing - {"vary"}):
        yield f"the gateway drops the header {name}"
    if direct.headers["content-type"] != through.headers["content-type"] and direct.status == through.status:
        yield f"content type {direct.headers['content-type']} → {through.headers['content-type']}"


def _error_shape(body: Any) -> Iterator[str]:
    if not isinstance(body, dict) or set(body.get("error", ())) != {"message", "type", "param", "code"}:
        yield f"an error without its shape: {body}"


def _parted(data: Any) -> Iterator[Any]:
    """The last piece comes with the reason why it is the last; whether others came before it depends on the engine."""
    choice = data["choices"][0] if isinstance(data, dict) and data.get("choices") else {}
    if choice.get("finish_reason") is not None and any(_pieces(data, "")):
        reasons = choice.keys() & {"finish_reason", "stop_reason"}
        yield {**data, "choices": [{**choice, **dict.fromkeys(reasons)}]}
    yield data


def _choice(data: Any) -> int:
    """Whose event it is: an engine that samples several choices sends them as they come."""
    choices = data.get("choices") if isinstance(data, dict) else None
    return int(choices[0].get("index", 0)) if choices else 0


def _masked(node: Any, streamed: bool, at: str = "") -> Any:
    if isinstance(node, dict):
        return {
            name: "*" if name in VOLATILE or (streamed and name in PIECES and isinstance(value, str | list))
            else _masked(value, streamed, name)
            for name, value in node.items() if name not in {"system_fingerprint", "request_id"}
            and not (streamed and name == "usage" and at == "" and node.get("choices"))
        }  # fmt: skip
    if isinstance(node, list):
        return [_masked(value, streamed, at) for value in node]
    return node


def _is_piece(value: Any) -> bool:
    return isinstance(value, str | list) and value not in ("", [])


def _pieces(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name in PIECES and _is_piece(value):
                yield f"{path}.{name}", value
            elif name not in VOLATILE:
                yield from _pieces(value, f"{path}.{name}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _pieces(value, f"{path}[{index}]")
