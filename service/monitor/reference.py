"""Which requests are the reference: versions of it, pinned or rolling or begun anew at a promotion.

A reference is the first `drift.reference_size` requests after a moment, so choosing one is choosing that moment. A
rolling reference moves on only to requests that were themselves judged free of drift: after the last alarm, a window's
worth after it, and two windows' worth before the newest request, since an alarm comes after what it tells of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from service.core.drift import Verdict
from service.core.errors import BadRequest, Conflict
from service.core.records import Alias, DriftCheck, DriftReference, Labelled
from service.core.window import Sizes, Windows, choose_windows, reference_end
from service.monitor.views import PERSON, DriftStore
from service.ports import Store
from service.settings import ReferenceMode, Settings

_GUARD = 2
"""Windows between a rolling reference and the newest request."""

_LISTED = 500


@dataclass(slots=True)
class References:
    """The references of an alias, or of a slice where `store` shows one's requests only."""

    store: DriftStore
    mode: ReferenceMode
    wanted: Sizes

    async def windows(self, alias: Alias) -> Windows:
        """The reference in force, and the newest requests after it that the present champion served."""
        wanted, since = self.wanted, await self.since(alias)
        oldest = await self.store.window(alias.name, since=since, limit=wanted.reference)
        end = reference_end(oldest, wanted)
        newest: Sequence[Labelled] = ()
        if end is not None:
            after = max(end, alias.reference_since)
            newest = await self.store.window(alias.name, since=after, limit=wanted.current, newest=True)
        return choose_windows(oldest, newest, wanted)

    async def since(self, alias: Alias) -> float:
        """After which moment the reference in force begins (Unix seconds)."""
        if self.mode is ReferenceMode.PROMOTION:
            return alias.reference_since
        versions = await self.store.drift_references(alias.name)
        if self.mode is ReferenceMode.ROLLING:
            drifted = await self._last_alarm(alias)
            versions = [one for one in versions if one.since >= alias.reference_since and not _holds(one, drifted)]
        return versions[0].since if versions else alias.reference_since

    async def stamped(self, alias: Alias, windows: Windows, check: DriftCheck) -> DriftCheck:
        """The check with the id of the reference that it compared with, which is kept as a version."""
        if windows.sizes.reference < self.wanted.reference:
            return check
        since, by = await self.since(alias), self.mode.value
        version = reference_of(alias.name, windows.reference, since=since, now=check.at, by=by)
        if version.id not in {one.id for one in await self.store.drift_references(alias.name)}:
            await self.store.add_drift_reference(version)
        return replace(check, reference=version.id)

    async def onset(self, alias: Alias) -> float | None:
        """When the drift began that was going on when this worker started."""
        newest = await self.store.drift_checks(alias.name, limit=1)
        lasting = newest and newest[0].verdict == Verdict.DRIFTED and newest[0].at > alias.reference_since
        return newest[0].since if lasting else None

    async def roll(self, alias: Alias, judged: DriftCheck, *, now: float) -> DriftReference | None:
        """After a verdict without drift: move a rolling reference on, where enough clean requests have come."""
        if self.mode is not ReferenceMode.ROLLING or judged.verdict != Verdict.STABLE:
            return None
        wanted = self.wanted
        versions = await self.store.drift_references(alias.name, limit=1)
        start, skipped = max(alias.reference_since, versions[0].until if versions else 0.0), 0
        drifted = await self._last_alarm(alias)
        if drifted is not None and drifted.at > start:
            start, skipped = drifted.at, wanted.current
        needed = skipped + wanted.reference + _GUARD * wanted.current
        rows = await self.store.window(alias.name, since=start, limit=needed)
        if len(rows) < needed:
            return None
        since = rows[skipped - 1].capture.at if skipped else start
        chosen = [row for row in rows[skipped:] if row.capture.at > since][: wanted.reference]
        version = reference_of(alias.name, chosen, since=since, now=now, by=self.mode.value)
        await self.store.add_drift_reference(version)
        return version

    async def _last_alarm(self, alias: Alias) -> DriftCheck | None:
        found = await self.store.drift_checks(alias.name, limit=1, verdict=Verdict.DRIFTED.value)
        return found[0] if found and found[0].at > alias.reference_since else None


def _holds(version: DriftReference, drifted: DriftCheck | None) -> bool:
    """Whether the reference had taken in requests of a drift before anybody knew of it."""
    if drifted is None or drifted.since is None:
        return False
    return version.made_at <= drifted.at and version.until > drifted.since


def reference_of(alias: str, rows: Sequence[Labelled], *, since: float, now: float, by: str) -> DriftReference:
    """The version that these requests are; the same requests have the same id."""
    named = "\0".join([alias, *(row.capture.request_id for row in rows)])
    digest = sha256(named.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return DriftReference(digest, alias, since, rows[-1].capture.at, len(rows), now, by)


async def pin_named(store: Store, settings: Settings, alias: Alias, named: str, *, now: float) -> DriftReference:
    """Make a version, or the requests after a moment, the pinned reference from now on; an event tells of it.

    Raises:
        Conflict: the settings pin no reference.
        BadRequest: `named` is neither, or too few requests came after that moment.
    """
    if settings.drift.reference is not ReferenceMode.PINNED:
        raise Conflict(
            f"drift.reference is {settings.drift.reference}, so a pinned reference would not be used; set it to pinned."
        )
    known = {one.id: one for one in await store.drift_references(alias.name, limit=_LISTED)}
    if named in known:
        chosen = replace(known[named], made_at=now, made_by=PERSON)
    else:
        chosen = await _after(store, settings.drift.reference_size, alias, _moment(named, alias), now=now)
    await store.add_drift_reference(chosen)
    told = f"The reference {chosen.id} is pinned: {chosen.size} requests after {utc_time(chosen.since)}."
    evidence = {"reference": chosen.id, "since": chosen.since, "until": chosen.until, "size": chosen.size}
    await store.add_event(
        "drift.pinned", actor=PERSON, message=told, now=now, alias=alias.name, evidence=evidence
    )  # fmt: skip
    return chosen


async def versions_view(store: Store, settings: Settings, alias: Alias) -> Mapping[str, Any]:
    """The versions of the alias's reference, newest first, and which is in force."""
    wanted = Sizes(settings.drift.reference_size, settings.drift.current_size)
    since = await References(store, settings.drift.reference, wanted).since(alias)
    versions = await store.drift_references(alias.name, limit=_LISTED)
    listed = [{"in_force": one.since == since, **asdict(one)} for one in versions]
    return {"references": [{key: value for key, value in one.items() if key != "slice"} for one in listed]}


async def _after(store: Store, size: int, alias: Alias, since: float, *, now: float) -> DriftReference:
    rows = await store.window(alias.name, since=since, limit=size)
    if len(rows) < size:
        raise BadRequest(
            f"Only {len(rows)} requests came after {utc_time(since)} and a reference needs {size} "
            "(drift.reference_size); pin an earlier moment, or wait."
        )
    return reference_of(alias.name, rows, since=since, now=now, by=PERSON)


def _moment(named: str, alias: Alias) -> float:
    try:
        return datetime.fromisoformat(named).timestamp()
    except (ValueError, OverflowError) as error:
        raise BadRequest(
            f"{named!r} is neither a reference of {alias.name!r} (`trimtab drift reference {alias.name}` lists them) "
            "nor a moment such as 2026-11-20T14:05."
        ) from error


def utc_time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(" ", "seconds")
