"""GET /v1/models: base models, aliases, adapters and embedding models, in OpenAI's list shape."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from service.core.errors import NotFound
from service.core.names import BASE
from service.core.routing import RoutingTable


def list_models(table: RoutingTable, embedding: Iterable[str]) -> dict[str, Any]:
    return {"object": "list", "data": _cards(table, embedding)}


def one_model(table: RoutingTable, embedding: Iterable[str], name: str) -> dict[str, Any]:
    """Raises NotFound for a name that no request could use."""
    for card in _cards(table, embedding):
        if card["id"] == name:
            return card
    raise NotFound(f"The model {name!r} does not exist.", param="model", code="model_not_found")


def _cards(table: RoutingTable, embedding: Iterable[str]) -> list[dict[str, Any]]:
    base = sorted(table.base_models)[0] if table.base_models else None
    cards = [_card(name, name, None, 0) for name in sorted(table.base_models)]
    for alias in sorted(table.aliases.values(), key=lambda a: a.name):
        root = base if alias.champion == BASE else alias.champion
        cards.append(_card(alias.name, root or alias.champion, base, int(alias.updated_at)))
    cards.extend(_card(name, name, base, 0) for name in sorted(table.adapters))
    cards.extend(_card(name, name, None, 0) for name in embedding)
    return cards


def _card(name: str, root: str, parent: str | None, created: int) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "trimtab",
        "root": root,
        "parent": parent,
    }
