"""The audit log as a hash chain: each event's hash covers all that it says and the hash of the event before it.

A chain proves that nothing was changed since its head was noted. Who may write the whole database could make a new
chain, so note the head elsewhere (`trimtab audit verify` prints it) and have it looked for later (`--noted`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from service.core.records import Event

GENESIS = "0" * 64
"""What the first event follows."""

_SAID = ("id", "at", "kind", "actor", "message", "alias", "cycle_id", "evidence")


@dataclass(frozen=True, slots=True)
class Link:
    """The chain up to an event: that event's id and hash."""

    event_id: int = 0
    hash: str = GENESIS


@dataclass(frozen=True, slots=True)
class Audit:
    """What a verification found: how many events are good, and the chain's head as the store knows it.

    `fault` says what is wrong, with `event_id`, the first bad event; None when all is well.
    """

    events: int
    head: Link
    event_id: int | None = None
    fault: str | None = None


def seal(event: Event, before: Link) -> Event:
    """The event as the next one of the chain. Its evidence holds JSON values only."""
    return replace(event, previous=before.hash, hash=digest(event, before.hash))


def digest(event: Event, previous: str) -> str:
    """SHA-256 in lower-case hex. Events sealed long ago must verify for ever, so this form never changes."""
    said = {name: getattr(event, name) for name in _SAID} | {"at": float(event.at)}
    canonical = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return sha256(f"{previous}\n{canonical}".encode()).hexdigest()


def fault_of(event: Event, before: Link) -> str | None:
    """What is wrong with `event` as the one that follows `before`; None when nothing is."""
    if event.hash != digest(event, event.previous):
        return "it was changed after it was written"
    if event.previous != before.hash:
        return f"it does not follow event {before.event_id}: events were changed, removed, inserted or moved before it"
    return None


def fault_of_end(last: Link, head: Link) -> str | None:
    """What is wrong with `last` as the end of a chain whose head the store knows."""
    if last != head:
        return f"it is not the last one written, which was event {head.event_id}: events were removed or changed"
    return None


def unexplained(champions: Mapping[str, str], told: Mapping[str, str]) -> str | None:
    """An alias whose champion is not the one that the log tells of; both by alias."""
    for alias in sorted(champions):
        if champions[alias] != told.get(alias):
            return f"{alias} serves {champions[alias]}, and the log tells of {told.get(alias, 'nothing')}"
    return None


@dataclass(frozen=True, slots=True)
class Serving:
    """What an alias served from `since` on, until the next one; who had it serve that, and why."""

    alias: str
    adapter: str
    since: float
    actor: str
    reason: str
    event_id: int
    cycle_id: str | None


SERVING_KINDS = ("alias.created", "alias.promoted", "alias.rolled_back")
"""Events that tell what an alias serves."""


def serving_after(event: Event) -> str | None:
    """The adapter that the alias serves after `event`; None for an event that says nothing about it."""
    if event.kind not in SERVING_KINDS:
        return None
    adapter = event.evidence.get("to" if event.kind == "alias.rolled_back" else "champion")
    return adapter if isinstance(adapter, str) else None


def servings(events: Sequence[Event]) -> list[Serving]:
    """What the alias of `events` served, one after the other. Events in order; a change to the same adapter is none."""
    found: list[Serving] = []
    for event in events:
        adapter = serving_after(event)
        if adapter is None or event.alias is None or (found and found[-1].adapter == adapter):
            continue
        found.append(Serving(event.alias, adapter, event.at, event.actor, event.message, event.id, event.cycle_id))
    return found


def serving_at(events: Sequence[Event], at: float) -> Serving | None:
    """What was served at `at` (Unix seconds); None before the first."""
    return next((one for one in reversed(servings(events)) if one.since <= at), None)
