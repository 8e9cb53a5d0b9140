"""Chats and plain completions: what they ask beyond their parameters, and what is asked of the engine on the side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from msgspec import structs

from service.core.errors import BadRequest
from service.core.records import Message
from service.gateway.ask import Ask, Kind, absent, decode
from service.gateway.bounds import check_schema, check_tokens
from service.gateway.params import MAX_PROMPTS, ChatParams, Common, CompletionParams, StreamOptions
from service.gateway.reading import ChatReader, Reader
from service.settings import GatewaySettings


@dataclass(frozen=True, slots=True)
class ChatAsk(Ask[ChatParams]):
    kind = Kind.CHAT
    reader: ClassVar[type[Reader]] = ChatReader
    kept_back = absent(
        "user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
        "verbosity", "modalities",
    )  # fmt: skip

    @property
    def user(self) -> str | None:
        return self.params.user or None

    def measured(self, confidence: bool) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        if self.stream:
            changes["stream_options"] = _with_usage(self.params.stream_options)
        if confidence and not self.wants_logprobs:
            changes["logprobs"] = True
        return changes

    def shadow_body(self, candidate: str) -> bytes:
        return self.encode({"model": candidate, **_ONCE, **({} if self.wants_logprobs else {"logprobs": True})})

    def prompt(self) -> Sequence[Message]:
        messages: list[dict[str, Any]] = msgspec.to_builtins(self.params.messages)
        return messages

    def conversation(self) -> bytes:
        roles = [message.role for message in self.params.messages]
        return self.digest(self.params.messages[: roles.index("user") + 1 if "user" in roles else 1])


@dataclass(frozen=True, slots=True)
class CompletionAsk(Ask[CompletionParams]):
    kind = Kind.COMPLETION
    reader: ClassVar[type[Reader]] = ChatReader
    kept_back = absent("user", "best_of")

    @property
    def user(self) -> str | None:
        return self.params.user or None

    @property
    def may_measure(self) -> bool:
        """Whether log-probabilities cost little: with `echo` the engine would compute the prompt's as well."""
        return not (self.wants_logprobs or self.params.echo)

    def measured(self, confidence: bool) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        if self.stream:
            changes["stream_options"] = _with_usage(self.params.stream_options)
        if confidence and self.may_measure:
            changes["logprobs"] = 0
        return changes

    def shadow_body(self, candidate: str) -> bytes:
        return self.encode({"model": candidate, **_ONCE, **({"logprobs": 0} if self.may_measure else {})})

    def prompt(self) -> Sequence[Message]:
        """One user message; of a list of prompts the first counts."""
        first = self.params.prompt if isinstance(self.params.prompt, str) else self.params.prompt[0]
        return [{"role": "user", "content": first}] if isinstance(first, str) else []

    def conversation(self) -> bytes:
        return self.digest(self.params.prompt)


def read_chat(body: bytes, limits: GatewaySettings) -> ChatAsk:
    params: ChatParams = decode(_chats, body)
    check_tokens("max_completion_tokens", params.max_completion_tokens, limits)
    if isinstance(params.top_logprobs, int) and params.logprobs is not True:
        raise BadRequest("top_logprobs needs logprobs: true.", param="top_logprobs", code="invalid_value")
    check_schema(params.tools, "tools")
    return ChatAsk(params, params.stream is True, params.logprobs is True, _check_common(params, limits))


def read_completion(body: bytes, limits: GatewaySettings) -> CompletionAsk:
    params: CompletionParams = decode(_completions, body)
    if not isinstance(params.prompt, str):
        kinds = {type(part) for part in params.prompt}
        if len(kinds) != 1:
            raise BadRequest(
                "prompt: a list holds texts, token ids or lists of token ids, not a mixture.", param="prompt"
            )
        if kinds != {int} and len(params.prompt) > MAX_PROMPTS:
            raise BadRequest(f"prompt: at most {MAX_PROMPTS} prompts in one request.", param="prompt",
                             code="invalid_value")  # fmt: skip
    wants_logprobs = isinstance(params.logprobs, int)
    return CompletionAsk(params, params.stream is True, wants_logprobs, _check_common(params, limits))


def _check_common(params: Common, limits: GatewaySettings) -> bool:
    """Check what both share; whether the client wants to see the usage event."""
    check_tokens("max_tokens", params.max_tokens, limits)
    check_tokens("min_tokens", params.min_tokens, limits)
    check_schema(params.response_format, "response_format")
    check_schema(params.structured_outputs, "structured_outputs")
    options = params.stream_options
    if not isinstance(options, StreamOptions):
        return False
    if params.stream is not True:
        raise BadRequest("stream_options needs stream: true.", param="stream_options", code="invalid_value")
    return options.include_usage is True


def _with_usage(options: object) -> StreamOptions:
    if isinstance(options, StreamOptions):
        return structs.replace(options, include_usage=True)
    return StreamOptions(include_usage=True)


_ONCE = absent("stream", "stream_options", "n")
_chats = msgspec.json.Decoder(ChatParams)
_completions = msgspec.json.Decoder(CompletionParams)
