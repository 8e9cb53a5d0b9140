"""/v1/messages, Anthropic's way to ask, and its count of tokens; how both look as messages and as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from service.core.records import Message
from service.gateway.ask import Ask, Kind, absent, decode
from service.gateway.bounds import check_schema, check_tokens
from service.gateway.messages_params import (
    Counted,
    CountTokensParams,
    MessagesParams,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
    Who,
)
from service.gateway.messages_params import Message as Turn
from service.gateway.reading import Reader, Said, Texts, engine_message
from service.settings import GatewaySettings

_FINISH = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
"""Anthropic's word for how a reply ended → OpenAI's, which captures use."""


class _Block(Struct):
    type: str = ""
    text: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"{}")


class _Usage(Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Reply(Struct):
    content: list[_Block] = []
    usage: _Usage | None = None
    stop_reason: str | None = None


class _Delta(Struct):
    text: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Event(Struct):
    type: str = ""
    index: int = 0
    message: _Reply | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: Any = None


class MessagesReader(Reader):
    """What is thought aloud is no part of the text."""

    one = msgspec.json.Decoder(_Reply)
    many = msgspec.json.Decoder(list[_Event])

    def __init__(self) -> None:
        super().__init__()
        self._texts = Texts()
        self._usage = _Usage()
        self._stop_reason: str | None = None

    def add_whole(self, reply: _Reply) -> None:
        for index, block in enumerate(reply.content):
            if block.type == "tool_use":
                self._texts.call(index, block.name, bytes(block.input).decode())
            elif block.type == "text" and block.text:
                self._texts.parts.append(block.text)
        self._usage = reply.usage or self._usage
        self._stop_reason = reply.stop_reason

    def add_event(self, event: _Event) -> None:
        if event.message is not None:
            self._usage = event.message.usage or self._usage
        block, delta = event.content_block, event.delta
        if block is not None and block.type == "tool_use":
            self._texts.call(event.index, block.name, None)
        if delta is not None:
            if delta.text:
                self._texts.parts.append(delta.text)
            if delta.partial_json:
                self._texts.call(event.index, None, delta.partial_json)
            self._stop_reason = delta.stop_reason or self._stop_reason
        self._usage = event.usage or self._usage
        if event.error is not None:
            self.error = engine_message(event.error)

    def collected(self) -> Said:
        usage = self._usage
        asked = usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
        finish = _FINISH.get(self._stop_reason or "")
        return Said(str(self._texts), None, asked, usage.output_tokens, finish, self.error)


class CountReader(MessagesReader):
    """Tokens that were counted were not used: nothing is said, nothing charged."""

    def add_whole(self, reply: _Reply) -> None:
        pass


@dataclass(frozen=True, slots=True)
class MessagesAsk(Ask[MessagesParams]):
    kind = Kind.MESSAGES
    reader: ClassVar[type[Reader]] = MessagesReader
    mirrored = False
    kept_back = absent("metadata", "service_tier", "cache_control", "context_management")

    @property
    def user(self) -> str | None:
        who = self.params.metadata
        return who.user_id or None if isinstance(who, Who) else None

    def prompt(self) -> Sequence[Message]:
        return _messages(self.params)


@dataclass(frozen=True, slots=True)
class CountTokensAsk(Ask[CountTokensParams]):
    kind = Kind.COUNT_TOKENS
    reader: ClassVar[type[Reader]] = CountReader
    captured = False
    mirrored = False
    salted = False
    kept_back = absent("cache_control", "context_management")

    @property
    def user(self) -> str | None:
        return None

    def prompt(self) -> Sequence[Message]:
        return _messages(self.params)


def read_messages(body: bytes, limits: GatewaySettings) -> MessagesAsk:
    params: MessagesParams = decode(_messages_decoder, body)
    check_tokens("max_tokens", params.max_tokens, limits)
    _check(params)
    return MessagesAsk(params, params.stream is True)


def read_count_tokens(body: bytes, limits: GatewaySettings) -> CountTokensAsk:
    params: CountTokensParams = decode(_count_decoder, body)
    _check(params)
    return CountTokensAsk(params)


def _check(params: Counted) -> None:
    check_schema(params.tools, "tools")
    check_schema(params.output_config, "output_config")
    for turn in params.messages:
        if not isinstance(turn.content, str):
            for block in turn.content:
                if isinstance(block, ToolUseBlock):
                    check_schema(block.input, "messages")


def _messages(params: Counted) -> list[Message]:
    """As a chat template takes them: Anthropic keeps the system's words and the tools' results elsewhere."""
    system = _text(params.system)
    first: list[Message] = [{"role": "system", "content": system}] if system else []
    return [*first, *(message for turn in params.messages for message in _turn(turn))]


def _turn(turn: Turn) -> Iterator[Message]:
    if isinstance(turn.content, str):
        yield {"role": turn.role, "content": turn.content}
        return
    for block in turn.content:
        if isinstance(block, ToolResultBlock):
            yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": _text(block.content)}
    calls = [
        {"id": block.id, "type": "function",
         "function": {"name": block.name, "arguments": msgspec.json.encode(block.input).decode()}}
        for block in turn.content if isinstance(block, ToolUseBlock)
    ]  # fmt: skip
    text = _text(turn.content)
    if calls:
        yield {"role": turn.role, "content": text or None, "tool_calls": calls}
    elif text:
        yield {"role": turn.role, "content": text}


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "".join(block.text for block in blocks if isinstance(block, TextBlock))


_messages_decoder = msgspec.json.Decoder(MessagesParams)
_count_decoder = msgspec.json.Decoder(CountTokensParams)
