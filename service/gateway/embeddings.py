"""/v1/embeddings: what it may contain, and what its replies cost. Vectors are neither captured nor mirrored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from service.core.errors import BadRequest
from service.core.records import Message
from service.gateway.ask import Ask, Kind, absent, decode
from service.gateway.params import Closed, Label, Maybe, Model, Text, TokenId
from service.gateway.reading import Reader, Said
from service.settings import GatewaySettings

MAX_INPUTS = 2048
MAX_INPUT_TOKENS = 2**17

Tokens = Annotated[list[TokenId], Meta(min_length=1, max_length=MAX_INPUT_TOKENS)]


class EmbeddingsParams(Closed, kw_only=True):
    model: Model
    input: Text | Annotated[list[Text | TokenId | Tokens], Meta(min_length=1, max_length=MAX_INPUT_TOKENS)]
    encoding_format: Literal["float", "base64"] | UnsetType = UNSET
    dimensions: Maybe[Annotated[int, Meta(ge=1, le=65536)]] = UNSET
    user: Label = UNSET
    # vLLM's own
    truncate_prompt_tokens: Maybe[Annotated[int, Meta(ge=-1, le=2**31)]] = UNSET
    truncation_side: Maybe[Literal["left", "right"]] = UNSET
    add_special_tokens: bool | UnsetType = UNSET
    use_activation: Maybe[bool] = UNSET


class _Usage(Struct):
    prompt_tokens: int = 0


class _Reply(Struct):
    usage: _Usage | None = None


class EmbeddingsReader(Reader):
    one = msgspec.json.Decoder(_Reply)
    many = msgspec.json.Decoder(list[_Reply])

    def __init__(self) -> None:
        super().__init__()
        self._usage = _Usage()

    def add_whole(self, reply: _Reply) -> None:
        self._usage = reply.usage or self._usage

    def add_event(self, event: _Reply) -> None:
        self.add_whole(event)

    def collected(self) -> Said:
        return Said(prompt_tokens=self._usage.prompt_tokens, error=self.error)


@dataclass(frozen=True, slots=True)
class EmbeddingsAsk(Ask[EmbeddingsParams]):
    kind = Kind.EMBEDDINGS
    reader: ClassVar[type[Reader]] = EmbeddingsReader
    captured = False
    mirrored = False
    kept_back = absent("user")

    @property
    def user(self) -> str | None:
        return self.params.user or None

    def prompt(self) -> Sequence[Message]:
        return ()

    def conversation(self) -> bytes:
        return self.digest(self.params.input)


def read_embeddings(body: bytes, limits: GatewaySettings) -> EmbeddingsAsk:
    params: EmbeddingsParams = decode(_decoder, body)
    if isinstance(params.input, list):
        kinds = {type(part) for part in params.input}
        if len(kinds) != 1:
            raise BadRequest(
                "input: a list holds texts, token ids or lists of token ids, not a mixture.", param="input"
            )
        if kinds != {int} and len(params.input) > MAX_INPUTS:
            raise BadRequest(f"input: at most {MAX_INPUTS} in one request.", param="input", code="invalid_value")
    return EmbeddingsAsk(params)


_decoder = msgspec.json.Decoder(EmbeddingsParams)
