"""Records → the plain JSON that people and the console read. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict
from typing import Any

from service.core.names import BASE
from service.core.records import Adapter, Alias, Cycle, DriftCheck, EngineView, Event, Job, Key

View = dict[str, Any]


def plain(value: Any) -> Any:
    """The value as JSON can hold it: a number that is not finite becomes null, a set a sorted list."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Set):
        return sorted(plain(item) for item in value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    return value


def record_view(record: Alias | Event | Job) -> View:
    """All fields as they are."""
    return dict(plain(asdict(record)))


def alias_view(alias: Alias, cycle: Cycle | None, quality: View) -> View:
    return {**record_view(alias), "quality": quality, "open_cycle": cycle_view(cycle) if cycle else None}


def cycle_view(cycle: Cycle) -> View:
    """The line of a list: without its evidence."""
    view = dict(plain(asdict(cycle)))
    del view["evidence"]
    return {**view, "is_open": cycle.is_open}


def cycle_detail(cycle: Cycle, job: Job | None, events: Sequence[Event] = ()) -> View:
    """The cycle with its evidence, its job's progress and its events (newest first)."""
    return {
        **cycle_view(cycle),
        "evidence": plain(cycle.evidence),
        "job": job_view(job) if job else None,
        "events": [record_view(event) for event in events],
    }


def job_view(job: Job) -> View:
    """Progress, without the result: the cycle's evidence holds that."""
    view = record_view(job)
    del view["result"], view["spec"]
    return view


def adapter_view(adapter: Adapter, engines: Sequence[EngineView]) -> View:
    """The adapter and the ready engines that hold it; `resident` is true when all of them do."""
    missing = missing_on(adapter.name, engines)
    ready = sum(engine.ready for engine in engines)
    return {
        "name": adapter.name,
        "alias": adapter.alias,
        "digest": adapter.digest,
        "rank": adapter.rank,
        "size_bytes": adapter.size_bytes,
        "created_at": adapter.created_at,
        "cycle_id": adapter.cycle_id,
        "locked": adapter.locked,
        "resident": ready > 0 and not missing,
        "engines_holding": ready - len(missing),
        "engines_ready": ready,
    }


def missing_on(adapter: str, engines: Sequence[EngineView]) -> list[str]:
    """URLs of the ready engines on which `adapter` is not verified resident."""
    return [e.url for e in engines if e.ready and adapter != BASE and adapter not in e.resident]


def drift_view(check: DriftCheck) -> View:
    view = dict(plain(asdict(check)))
    return {**view, "report": bool(check.report)}


def engine_view(engine: EngineView) -> View:
    return {
        "url": engine.url,
        "ready": engine.ready,
        "resident": sorted(engine.resident),
        "seen_at": engine.seen_at,
        "base_model": engine.base_model,
    }


def key_view(key: Key) -> View:
    """Never the hash."""
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
        "requests_per_minute": key.requests_per_minute,
        "tokens_per_minute": key.tokens_per_minute,
    }
