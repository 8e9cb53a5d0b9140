"""What an alias served, and why, as its audit events tell it."""

from __future__ import annotations

from service.control.views import View, plain
from service.core.audit import SERVING_KINDS, Serving, serving_at, servings
from service.core.errors import NotFound
from service.core.lineage import explanation, lineage
from service.core.records import Event
from service.ports import Store


async def history(store: Store, alias: str) -> list[View]:
    """Everything that the alias served, newest first; `until` is null for what it serves now."""
    await store.alias(alias)
    events = await store.events(alias, kinds=SERVING_KINDS, limit=None)
    found = servings(events[::-1])
    ends = [*(one.since for one in found[1:]), None]
    return [_view(one) | {"until": end} for one, end in zip(found, ends, strict=True)][::-1]


async def served_at(store: Store, alias: str, at: float) -> View:
    """What the alias served at `at` (Unix seconds), with the facts of the cycle that led to it."""
    await store.alias(alias)
    events = await store.events(alias, kinds=SERVING_KINDS, limit=None)
    found = serving_at(events[::-1], at)
    if found is None:
        raise NotFound(f"{alias!r} was not there yet at that time; `trimtab aliases history {alias}` tells since when.")
    view, cycle_id = {"alias": alias, "at": at, **_view(found)}, found.cycle_id
    if (added := await _added(store, found.adapter)) is not None:
        view["digest"], cycle_id = added.evidence.get("digest"), cycle_id or added.cycle_id
    if cycle_id is not None:
        cycle = await store.events(alias, cycle_id=cycle_id, limit=None)
        facts = lineage([event for event in cycle[::-1] if event.id <= found.event_id])
        view |= {"explanation": explanation(facts), **facts}
    return dict(plain(view))


async def _added(store: Store, adapter: str) -> Event | None:
    """When the adapter was registered: the log knows it also after the adapter is gone."""
    events = await store.events(kinds=("adapter.added",), limit=None)
    return next((event for event in events if event.evidence.get("adapter") == adapter), None)


def _view(one: Serving) -> View:
    return {
        "adapter": one.adapter,
        "since": one.since,
        "by": one.actor,
        "reason": one.reason,
        "event": one.event_id,
        "cycle_id": one.cycle_id,
    }
