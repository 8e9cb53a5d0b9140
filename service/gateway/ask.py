"""A request within limits, whatever API it came by: what the proxy, the mirror and the capture need to know of it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import msgspec
from msgspec import UNSET, structs

from service.core.errors import BadRequest
from service.core.records import Message
from service.gateway.reading import Reader

HEAD_BYTES = 4096
"""As much of a conversation's beginning tells it from others."""

_AT = re.compile(r" - at (?:`key` in )?`\$\.?(.*)`$")
_UNKNOWN = re.compile(r"contains unknown field `(.*?)`")
_MISSING = re.compile(r"missing required field `(.*?)`")


class Named(Protocol):
    """Every API's parameters name the model that is asked."""

    @property
    def model(self) -> str: ...


P = TypeVar("P", bound=Named)


class Kind(StrEnum):
    """The ways to ask; the value is the path below /v1."""

    CHAT = "chat/completions"
    COMPLETION = "completions"
    RESPONSES = "responses"
    MESSAGES = "messages"
    COUNT_TOKENS = "messages/count_tokens"
    EMBEDDINGS = "embeddings"


@dataclass(frozen=True, slots=True)
class Ask(ABC, Generic[P]):
    """One request. `wants_*`: the client sees all of the reply; False where we ask the engine for more than it did.

    Each API says in class variables what holds for all its requests: how its replies are `read`, whether they are
    `captured` and may be `mirrored`, whether the engine takes a cache `salt`, and what is not passed on (`kept_back`).
    """

    params: P
    stream: bool = False
    wants_logprobs: bool = True
    wants_usage: bool = True

    kind: ClassVar[Kind]
    reader: ClassVar[type[Reader]]
    captured: ClassVar[bool] = True
    mirrored: ClassVar[bool] = True
    salted: ClassVar[bool] = True
    kept_back: ClassVar[Mapping[str, Any]] = {}

    @property
    def model(self) -> str:
        return self.params.model

    @property
    @abstractmethod
    def user(self) -> str | None:
        """The app's own name for who asks."""

    def tags(self, keys: Collection[str]) -> Mapping[str, str]:
        """What the request's metadata says under these keys."""
        if not keys:
            return {}
        told = getattr(self.params, "metadata", None)
        known = told if isinstance(told, Mapping) else {}
        return {key: known[key] for key in keys if key in known}

    @abstractmethod
    def prompt(self) -> Sequence[Message]:
        """The request as captured: messages as a chat template takes them."""

    def engine_body(self, served_model: str, *, confidence: bool, tenant: str | None) -> bytes:
        """The request as the engine gets it: its word for the model, log-probabilities and usage asked for.

        Tenants share no prefix cache: a faster first token would tell one what another has asked.
        """
        body = self.encode({"model": served_model, **self.measured(confidence)})
        return with_fields(body, {"cache_salt": tenant}) if tenant is not None and self.salted else body

    def shadow_body(self, candidate: str) -> bytes:
        """The same question to another adapter: sampled alike, one choice, not streamed."""
        return self.encode({"model": candidate, "stream": UNSET})

    def measured(self, confidence: bool) -> dict[str, Any]:
        """What is asked of the engine beyond what the client did."""
        return {}

    def conversation(self) -> bytes:
        """What stays the same from turn to turn: who asks, and the prompt up to the first thing that a user said."""
        prompt = self.prompt()
        roles = [message["role"] for message in prompt]
        return self.digest(prompt[: roles.index("user") + 1 if "user" in roles else 1])

    def digest(self, head: Any) -> bytes:
        return blake2b(_encoder.encode((self.user, head))[:HEAD_BYTES], digest_size=8).digest()

    def encode(self, changes: dict[str, Any]) -> bytes:
        params: Any = self.params  # a Struct, which a Protocol cannot say
        return _encoder.encode(structs.replace(params, **self.kept_back, **changes))


def absent(*names: str) -> dict[str, Any]:
    """Changes that leave these fields out."""
    return dict.fromkeys(names, UNSET)


def with_fields(body: bytes, fields: Mapping[str, Any]) -> bytes:
    """A request's JSON with fields that clients may not set."""
    return msgspec.json.encode(fields)[:-1] + b"," + body[1:]


def decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    """Decode by type; every way in which bytes can be wrong becomes one BadRequest, with the field in `param`."""
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


_encoder = msgspec.json.Encoder()
