"""The one JSON that the console polls: everything it shows, small enough to be asked for every second."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from service.control.context import Control
from service.control.drift import slice_checks
from service.control.quality import buckets
from service.control.views import (
    View,
    adapter_view,
    cycle_detail,
    cycle_view,
    drift_view,
    engine_view,
    record_view,
)
from service.core.errors import NotFound
from service.core.lineage import explanation, lineage
from service.core.records import Alias, Cycle, DriftCheck, Event, Job
from service.core.starts import DRIFTED
from service.settings import PromotionMode

POINTS, REPLIES_A_POINT = 60, 15
CYCLES, EVENTS, CHECKS = 12, 30, 120
ALIAS_EVENTS = 200


async def overview(control: Control) -> View:
    """Aliases with their quality, drift and cycle; engines; adapters; recent cycles and events."""
    store, settings = control.store, control.settings
    engines = (await store.routing()).engines
    aliases = await store.aliases()
    return {
        "now": control.clock.now(),
        "model": settings.model,
        "mode": str(settings.promotion.mode),
        "engines": [engine_view(engine) for engine in engines],
        "aliases": [await alias_overview(control, alias) for alias in aliases],
        "adapters": [adapter_view(adapter, engines) for adapter in await store.adapters()],
        "cycles": [cycle_view(cycle) for cycle in await store.cycles(limit=CYCLES)],
        "events": [record_view(event) for event in await store.events(limit=EVENTS)],
    }


async def alias_overview(control: Control, alias: Alias) -> View:
    store, settings = control.store, control.settings
    checks = await store.drift_checks(alias.name, limit=CHECKS)
    events = await store.events(alias.name, limit=ALIAS_EVENTS)
    recent = await store.cycles(alias.name, limit=1)
    shown = recent[0] if recent else None
    return {
        **record_view(alias),
        "scorer": settings.alias(alias.name).scorer,
        "quality": await quality_view(control, alias.name, POINTS, replies_a_point=REPLIES_A_POINT),
        "marks": marks(checks, events),
        "drift": drift_view(checks[0]) if checks else await _drift_waits(control, alias),
        "slices": [drift_view(check) for check in await slice_checks(store, settings, alias.name)],
        "cycle": await cycle_and_job(control, shown, events) if shown else None,
        "awaits_approval": _awaits_approval(control, shown),
    }


async def quality_view(control: Control, alias: str, points: int, *, replies_a_point: int = 1) -> View:
    """Served quality now and over time (0..1); `labelled` replies stand behind `now`.

    There are at most `points` points, and fewer where that few replies would leave only noise in each.
    """
    quality, labelled = await control.board.now(alias)
    scored = await control.board.scored(alias)
    series = buckets(scored, min(points, max(2, len(scored) // replies_a_point)))
    return {
        "now": quality,
        "labelled": labelled,
        "points": [{"at": p.at, "quality": p.quality, "n": p.n} for p in series],
    }


async def cycle_and_job(control: Control, cycle: Cycle, events: Sequence[Event]) -> View:
    """The cycle in full, with those of `events` (newest first) that are its own."""
    own = [event for event in events if event.cycle_id == cycle.id]
    detail = cycle_detail(cycle, await _job(control, cycle), own)
    return {**detail, "explanation": explanation(lineage(own[::-1]))}


def marks(checks: Sequence[DriftCheck], events: Sequence[Event]) -> list[View]:
    """What a chart of quality should point out, in order of time: drift's onsets, promotions, rollbacks.

    Args:
        checks: of one alias, newest first.
        events: of one alias, newest first.
    """
    found = [{"at": e.at, "kind": "promoted"} for e in events if e.kind == "alias.promoted"]
    for event in events:
        if event.kind == "alias.rolled_back" and event.evidence.get("from") != event.evidence.get("to"):
            found.append({"at": event.at, "kind": "rolled_back"})
    for newer, older in zip_longest(checks, checks[1:]):
        if newer.verdict == DRIFTED and (older is None or older.verdict != DRIFTED):
            found.append({"at": newer.at, "kind": "drifted"})
    return sorted(found, key=lambda mark: mark["at"])


async def _drift_waits(control: Control, alias: Alias) -> View:
    """Before the first verdict: how much traffic there is of what a verdict needs."""
    drift = control.settings.drift
    return {
        "verdict": None,
        "enabled": drift.enabled,
        "requests": await control.store.count(alias.name, since=alias.reference_since),
        "needed": drift.reference_size + drift.current_size,
    }


async def _job(control: Control, cycle: Cycle) -> Job | None:
    if cycle.job_id is None:
        return None
    try:
        return await control.store.job(cycle.job_id)
    except NotFound:
        return None


def _awaits_approval(control: Control, cycle: Cycle | None) -> bool:
    if cycle is None or (control.settings.promotion.mode is PromotionMode.AUTO and not cycle.evidence.get("doubts")):
        return False
    return cycle.state in {"shadowing", "canary"} and not cycle.evidence.get("approved")
