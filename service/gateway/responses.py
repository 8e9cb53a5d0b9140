"""/v1/responses: one request, one reply; how both look as messages and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from service.core.errors import BadRequest
from service.core.records import Message
from service.gateway.ask import Ask, Kind, absent, decode
from service.gateway.bounds import check_schema, check_tokens
from service.gateway.reading import Reader, Said, Texts, engine_message
from service.gateway.responses_params import Item, Refusal, ResponsesParams
from service.settings import GatewaySettings

_STATELESS = (
    "{0} is not supported: replies are not stored here, so that nobody can read another's; send the whole "
    "conversation in input."
)


class _Part(Struct):
    text: str | None = None


class _Item(Struct):
    type: str = ""
    content: list[_Part] | None = None
    name: str | None = None
    arguments: str | None = None
    input: str | None = None


class _Usage(Struct):
    input_tokens: int = 0
    output_tokens: int = 0


class _Reply(Struct):
    output: list[_Item] = []
    usage: _Usage | None = None
    status: str | None = None
    error: Any = None


class _Event(Struct):
    type: str = ""
    delta: Any = None
    response: _Reply | None = None
    error: Any = None


class ResponsesReader(Reader):
    """The last event holds the whole reply; the pieces before it count only where it never came."""

    one = msgspec.json.Decoder(_Reply)
    many = msgspec.json.Decoder(list[_Event])

    def __init__(self) -> None:
        super().__init__()
        self._texts = Texts()
        self._usage = _Usage()
        self._finish_reason: str | None = None

    def add_whole(self, reply: _Reply) -> None:
        self._texts = Texts()
        calls = 0
        for item in reply.output:
            if item.type == "message":
                self._texts.parts += [part.text for part in item.content or () if part.text]
            elif item.type in {"function_call", "custom_tool_call"}:
                self._texts.call(calls, item.name, item.arguments or item.input)
                calls += 1
        self._usage = reply.usage or self._usage
        self._finish_reason = "length" if reply.status == "incomplete" else "tool_calls" if calls else "stop"
        if reply.error is not None:
            self.error = engine_message(reply.error)

    def add_event(self, event: _Event) -> None:
        if event.type == "response.output_text.delta" and isinstance(event.delta, str):
            self._texts.parts.append(event.delta)
        elif event.response is not None and event.response.status != "in_progress":
            self.add_whole(event.response)
        elif event.error is not None:
            self.error = engine_message(event.error)

    def collected(self) -> Said:
        usage = self._usage
        return Said(
            str(self._texts), None, usage.input_tokens, usage.output_tokens, self._finish_reason, self.error
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ResponsesAsk(Ask[ResponsesParams]):
    kind = Kind.RESPONSES
    reader: ClassVar[type[Reader]] = ResponsesReader
    kept_back = absent(
        "background", "previous_response_id", "conversation", "prompt", "safety_identifier", "prompt_cache_retention",
        "stream_options",
    ) | {"store": False}  # fmt: skip

    @property
    def user(self) -> str | None:
        return self.params.user or None

    def prompt(self) -> Sequence[Message]:
        asked = self.params.input
        messages = [{"role": "system", "content": self.params.instructions}] if self.params.instructions else []
        if isinstance(asked, str):
            return [*messages, {"role": "user", "content": asked}]
        return messages + [message for message in map(_message, asked) if message]


def read_responses(body: bytes, limits: GatewaySettings) -> ResponsesAsk:
    params: ResponsesParams = decode(_decoder, body)
    for name in ("background", "previous_response_id", "conversation", "prompt"):
        if getattr(params, name):
            raise BadRequest(_STATELESS.format(name), param=name, code="unsupported_parameter")
    check_tokens("max_output_tokens", params.max_output_tokens, limits)
    check_schema(params.text, "text")
    check_schema(params.tools, "tools")
    check_schema(params.structured_outputs, "structured_outputs")
    return ResponsesAsk(params, params.stream is True)


def _message(item: Item) -> dict[str, Any] | None:
    """An item as a chat message; None for a reasoning, which no template takes."""
    if item.type in {"function_call", "custom_tool_call"}:
        function = {"name": item.name or "", "arguments": item.arguments or item.input or ""}
        call = {"id": item.call_id or "", "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if item.type in {"function_call_output", "custom_tool_call_output"}:
        return {"role": "tool", "tool_call_id": item.call_id or "", "content": _text(item.output)}
    if item.type == "reasoning":
        return None
    return {"role": item.role or "user", "content": _text(item.content)}


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part.refusal if isinstance(part, Refusal) else part.text for part in parts)


_decoder = msgspec.json.Decoder(ResponsesParams)
