"""Bytes from a client → a request that an engine may see. Known fields within limits; everything else is a 400."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import UNSET, structs

from service.core.errors import BadRequest
from service.core.records import Message
from service.gateway.params import MAX_PROMPTS, NOT_PASSED_ON, ChatParams, CompletionParams, StreamOptions
from service.settings import GatewaySettings

MAX_SCHEMA_DEPTH = 32
MAX_SCHEMA_NODES = 4096
MAX_SCHEMA_STRING = 8192
MAX_PATTERN = 512

_HEAD_BYTES = 4096
_AT = re.compile(r" - at (?:`key` in )?`\$\.?(.*)`$")
_UNKNOWN = re.compile(r"contains unknown field `(.*?)`")
_MISSING = re.compile(r"missing required field `(.*?)`")


class Kind(StrEnum):
    """The two ways to ask; the value is the path below /v1."""

    CHAT = "chat/completions"
    COMPLETION = "completions"


@dataclass(frozen=True, slots=True)
class Ask:
    """A request within limits. `wants_*` tell what the client asked to see, whatever we ask of the engine."""

    kind: Kind
    params: ChatParams | CompletionParams
    stream: bool
    wants_logprobs: bool
    wants_usage: bool

    @property
    def model(self) -> str:
        return self.params.model

    @property
    def user(self) -> str | None:
        return self.params.user or None

    def engine_body(self, served_model: str, *, confidence: bool, tenant: str | None) -> bytes:
        """The request as the engine gets it: its word for the model, log-probabilities and usage asked for.

        Tenants share no prefix cache: a faster first token would tell one what another has asked.
        """
        changes: dict[str, Any] = {"model": served_model}
        if self.stream:
            changes["stream_options"] = _with_usage(self.params.stream_options)
        if confidence and self.may_measure and not self.wants_logprobs:
            changes["logprobs"] = True if self.kind is Kind.CHAT else 0
        return self._encode(changes) if tenant is None else with_fields(self._encode(changes), {"cache_salt": tenant})

    def shadow_body(self, candidate: str) -> bytes:
        """The same question to another adapter: sampled alike, one choice, not streamed."""
        changes: dict[str, Any] = {"model": candidate, "stream": UNSET, "stream_options": UNSET, "n": UNSET}
        if self.may_measure and not self.wants_logprobs:
            changes["logprobs"] = True if self.kind is Kind.CHAT else 0
        return self._encode(changes)

    @property
    def may_measure(self) -> bool:
        """Whether log-probabilities cost little: with `echo` the engine would compute the prompt's as well."""
        return not (isinstance(self.params, CompletionParams) and self.params.echo)

    def prompt(self) -> Sequence[Message]:
        """The messages as captured; a completion's prompt is one user message, a list's first counts."""
        if isinstance(self.params, ChatParams):
            messages: list[dict[str, Any]] = msgspec.to_builtins(self.params.messages)
            return messages
        first = self.params.prompt if isinstance(self.params.prompt, str) else self.params.prompt[0]
        return [{"role": "user", "content": first}] if isinstance(first, str) else []

    def conversation(self) -> bytes:
        """What stays the same from turn to turn: who asks, and the prompt up to the first thing that a user said."""
        head: Any
        if isinstance(self.params, ChatParams):
            roles = [message.role for message in self.params.messages]
            head = self.params.messages[: roles.index("user") + 1 if "user" in roles else 1]
        else:
            head = self.params.prompt
        return blake2b(_encoder.encode((self.user, head))[:_HEAD_BYTES], digest_size=8).digest()

    def _encode(self, changes: dict[str, Any]) -> bytes:
        for name in NOT_PASSED_ON[type(self.params)]:
            changes[name] = UNSET
        return _encoder.encode(structs.replace(self.params, **changes))


def with_fields(body: bytes, fields: Mapping[str, Any]) -> bytes:
    """A request's JSON with fields that clients may not set."""
    return msgspec.json.encode(fields)[:-1] + b"," + body[1:]


def read_ask(kind: Kind, body: bytes, limits: GatewaySettings) -> Ask:
    """Decode and bound a request; BadRequest names the field at fault in `param`."""
    params = decode(_DECODERS[kind], body)
    if isinstance(params, ChatParams):
        _check_chat(params, limits)
        wants_logprobs = params.logprobs is True
    else:
        _check_completion(params)
        wants_logprobs = isinstance(params.logprobs, int)
    _check_tokens("max_tokens", params.max_tokens, limits)
    _check_schemas(params)
    if b"\\u0000" in body:
        _refuse_nul(msgspec.json.decode(body), "")
    options = params.stream_options
    wants_usage = isinstance(options, StreamOptions) and options.include_usage is True
    if isinstance(options, StreamOptions) and params.stream is not True:
        raise BadRequest("stream_options needs stream: true.", param="stream_options", code="invalid_value")
    return Ask(kind, params, params.stream is True, wants_logprobs, wants_usage)


def decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    """Decode by type; every way in which bytes can be wrong becomes one BadRequest."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _explain(str(error)) from None
    except RecursionError:
        raise BadRequest("The body is nested too deeply.", code="invalid_json") from None
    except ValueError as error:
        raise BadRequest(f"The body is not valid JSON: {error}.", code="invalid_json") from None


def _explain(text: str) -> BadRequest:
    at = _AT.search(text)
    path = at[1] if at else ""
    reason = text[: at.start()] if at else text
    if unknown := _UNKNOWN.search(reason):
        param = f"{path}.{unknown[1]}".lstrip(".")
        message = f"The parameter {param!r} is not accepted; /docs lists those that are."
        return BadRequest(message, param=param, code="unknown_parameter")
    if missing := _MISSING.search(reason):
        param = f"{path}.{missing[1]}".lstrip(".")
        return BadRequest(f"The parameter {param!r} is missing.", param=param, code="missing_required_parameter")
    where = path or "The body"
    return BadRequest(f"{where}: {reason[:1].lower()}{reason[1:]}.", param=path or None, code="invalid_value")


def _check_chat(params: ChatParams, limits: GatewaySettings) -> None:
    _check_tokens("max_completion_tokens", params.max_completion_tokens, limits)
    if isinstance(params.top_logprobs, int) and params.logprobs is not True:
        raise BadRequest("top_logprobs needs logprobs: true.", param="top_logprobs", code="invalid_value")


def _check_completion(params: CompletionParams) -> None:
    prompt = params.prompt
    if isinstance(prompt, str):
        return
    kinds = {type(part) for part in prompt}
    if len(kinds) != 1:
        raise BadRequest("prompt: a list holds texts, token ids or lists of token ids, not a mixture.", param="prompt")
    if kinds != {int} and len(prompt) > MAX_PROMPTS:
        raise BadRequest(f"prompt: at most {MAX_PROMPTS} prompts in one request.", param="prompt", code="invalid_value")


def _check_tokens(name: str, value: object, limits: GatewaySettings) -> None:
    if isinstance(value, int) and value > limits.max_tokens:
        raise BadRequest(f"{name}: at most {limits.max_tokens} tokens.", param=name, code="invalid_value")


def _check_schemas(params: ChatParams | CompletionParams) -> None:
    if params.response_format:
        _check_tree(msgspec.to_builtins(params.response_format), "response_format")
    if params.structured_outputs:
        _check_tree(msgspec.to_builtins(params.structured_outputs), "structured_outputs")
    if isinstance(params, ChatParams) and params.tools:
        _check_tree(msgspec.to_builtins(params.tools), "tools")


def _check_tree(root: object, param: str) -> None:
    """Bound a schema's depth, size and patterns: the engine compiles it."""
    nodes = 0
    todo: list[tuple[object, int, str]] = [(root, 0, "")]
    while todo:
        node, depth, key = todo.pop()
        nodes += 1
        if depth > MAX_SCHEMA_DEPTH or nodes > MAX_SCHEMA_NODES:
            raise BadRequest(
                f"{param}: at most {MAX_SCHEMA_DEPTH} levels and {MAX_SCHEMA_NODES} values.", param=param,
                code="invalid_value",
            )  # fmt: skip
        if isinstance(node, Mapping):
            todo.extend((value, depth + 1, name) for name, value in node.items())
        elif isinstance(node, list):
            todo.extend((value, depth + 1, "") for value in node)
        elif isinstance(node, str) and len(node) > (MAX_PATTERN if key == "pattern" else MAX_SCHEMA_STRING):
            raise BadRequest(f"{param}: {key or 'a text'} is too long.", param=param, code="invalid_value")


def _refuse_nul(node: object, path: str) -> None:
    if isinstance(node, str):
        if "\0" in node:
            raise BadRequest(f"{path}: the NUL character is not accepted.", param=path, code="invalid_value")
    elif isinstance(node, dict):
        for key, value in node.items():
            _refuse_nul(key, path)
            _refuse_nul(value, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            _refuse_nul(value, f"{path}[{index}]")


def _with_usage(options: object) -> StreamOptions:
    if isinstance(options, StreamOptions):
        return structs.replace(options, include_usage=True)
    return StreamOptions(include_usage=True)


_encoder = msgspec.json.Encoder()
_DECODERS: Mapping[Kind, msgspec.json.Decoder[Any]] = {
    Kind.CHAT: msgspec.json.Decoder(ChatParams),
    Kind.COMPLETION: msgspec.json.Decoder(CompletionParams),
}
