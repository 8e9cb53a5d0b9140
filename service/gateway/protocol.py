"""Bytes from a client → a request that an engine may see. Known fields within limits; everything else is a 400."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from service.gateway.ask import Ask, Kind
from service.gateway.bounds import refuse_nul
from service.gateway.chat import read_chat, read_completion
from service.gateway.embeddings import read_embeddings
from service.gateway.messages import read_count_tokens, read_messages
from service.gateway.responses import read_responses
from service.settings import GatewaySettings

_READ: Mapping[Kind, Callable[[bytes, GatewaySettings], Ask[Any]]] = {
    Kind.CHAT: read_chat,
    Kind.COMPLETION: read_completion,
    Kind.RESPONSES: read_responses,
    Kind.MESSAGES: read_messages,
    Kind.COUNT_TOKENS: read_count_tokens,
    Kind.EMBEDDINGS: read_embeddings,
}


def read_ask(kind: Kind, body: bytes, limits: GatewaySettings) -> Ask[Any]:
    """Decode and bound a request; BadRequest names the field at fault in `param`."""
    ask = _READ[kind](body, limits)
    if b"\\u0000" in body:
        refuse_nul(msgspec.json.decode(body))
    return ask
