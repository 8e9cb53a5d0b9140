"""Which adapter answers a request, and on which engine: a pure function of one immutable snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from service.core.errors import NotFound, Unavailable
from service.core.names import BASE
from service.core.records import Alias, EngineView
from service.core.sampling import in_share


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """All that a gateway needs to route; replaced whole, never changed.

    `base_models` are the names by which clients may ask for the base model itself; `adapters` maps every registered
    adapter's name to its alias, so that a client may pin one.
    """

    aliases: Mapping[str, Alias] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)
    engines: tuple[EngineView, ...] = ()
    base_models: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes: `adapter` is a name or `base`; `served_model` is the engine's word for it."""

    alias: str
    adapter: str
    served_model: str
    engines: tuple[str, ...]
    candidate: str | None = None
    mirror_ratio: float = 0.0


def resolve(table: RoutingTable, model: str, sticky_key: str) -> Target:
    """Route a request for `model`.

    `sticky_key` (a user, else the conversation) decides the canary, so that nobody meets two adapters in turn; where no
    engine holds the candidate, the champion answers.

    Raises:
        NotFound: `model` is no alias, adapter or base model.
        Unavailable: no ready engine holds the adapter. The base never answers in its place.
    """
    alias = table.aliases.get(model)
    if alias is not None:
        adapter = alias.champion
        if (
            alias.candidate
            and in_share(sticky_key, alias.canary_ratio, salt=alias.candidate)
            and holders(table, alias.candidate)
        ):
            adapter = alias.candidate
        return _target(table, alias.name, adapter, alias.candidate, alias.mirror_ratio)
    if model in table.adapters:
        return _target(table, table.adapters[model], model, None, 0.0)
    if model in table.base_models:
        return _target(table, model, BASE, None, 0.0)
    raise NotFound(
        f"The model {model!r} does not exist; GET /v1/models lists those that do.",
        param="model",
        code="model_not_found",
    )


def holders(table: RoutingTable, adapter: str) -> tuple[EngineView, ...]:
    """The ready engines on which `adapter` is verified resident (for `base`: every ready engine)."""
    return tuple(e for e in table.engines if e.ready and (adapter == BASE or adapter in e.resident))


def _target(table: RoutingTable, alias: str, adapter: str, candidate: str | None, mirror_ratio: float) -> Target:
    engines = holders(table, adapter)
    if not engines:
        raise Unavailable(
            f"No ready engine holds {adapter!r} for {alias!r} yet; retry shortly.", param="model", retry_after_s=1.0
        )
    served = engines[0].base_model if adapter == BASE else adapter
    shadow = candidate if candidate and candidate != adapter and mirror_ratio > 0.0 else None
    return Target(alias, adapter, served, tuple(e.url for e in engines), shadow, mirror_ratio)
