"""What the drift worker reads and writes, and two narrower views of it: one slice's, and the past as it was."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from service.core.drift import Verdict
from service.core.records import DriftCheck, DriftReference, Labelled

_KEPT = 50


class DriftStore(Protocol):
    """The part of `service.ports.Store` that judging one alias needs."""

    async def window(
        self, alias: str, *, since: float, until: float | None = None, limit: int, newest: bool = False,
        labelled_only: bool = False, tag: str | None = None,
    ) -> Sequence[Labelled]: ...  # fmt: skip

    async def tags(self, alias: str, key: str, *, limit: int) -> Sequence[str]: ...

    async def add_drift_check(self, check: DriftCheck) -> None: ...

    async def drift_checks(
        self, alias: str | None = None, *, limit: int = 50, slice: str | None = None, verdict: str | None = None
    ) -> Sequence[DriftCheck]: ...

    async def add_drift_reference(self, reference: DriftReference) -> None: ...

    async def drift_references(
        self, alias: str, *, limit: int = 50, slice: str | None = None
    ) -> Sequence[DriftReference]: ...


class Sliced:
    """The requests that bear one tag, as if they were all there are; what is written says whose it is."""

    def __init__(self, store: DriftStore, tag: str) -> None:
        self._store = store
        self._tag = tag

    async def window(
        self, alias: str, *, since: float, until: float | None = None, limit: int, newest: bool = False,
        labelled_only: bool = False, tag: str | None = None,
    ) -> Sequence[Labelled]:  # fmt: skip
        return await self._store.window(
            alias, since=since, until=until, limit=limit, newest=newest, labelled_only=labelled_only,
            tag=tag or self._tag,
        )  # fmt: skip

    async def tags(self, alias: str, key: str, *, limit: int) -> Sequence[str]:
        return ()

    async def add_drift_check(self, check: DriftCheck) -> None:
        about = f"{self._tag}: "
        if check.verdict == Verdict.INCONCLUSIVE:
            about = f"The slice {self._tag} is too small to say. "
        reasons = [f"{about}{check.reasons[0]}", *check.reasons[1:]] if check.reasons else []
        await self._store.add_drift_check(replace(check, slice=self._tag, reasons=reasons))

    async def drift_checks(
        self, alias: str | None = None, *, limit: int = 50, slice: str | None = None, verdict: str | None = None
    ) -> Sequence[DriftCheck]:
        return await self._store.drift_checks(alias, limit=limit, slice=slice or self._tag, verdict=verdict)

    async def add_drift_reference(self, reference: DriftReference) -> None:
        await self._store.add_drift_reference(replace(reference, slice=self._tag))

    async def drift_references(
        self, alias: str, *, limit: int = 50, slice: str | None = None
    ) -> Sequence[DriftReference]:
        return await self._store.drift_references(alias, limit=limit, slice=slice or self._tag)


class Recorded:
    """The store as it stood at `moment` (Unix seconds), for replay; what is written stays in memory, the newest of it.

    Feedback that came after the moment is not there yet. (Of a request with several, an earlier one is not seen.)
    """

    def __init__(self, store: DriftStore) -> None:
        self._store = store
        self._checks: defaultdict[str | None, list[DriftCheck]] = defaultdict(list)
        self._references: defaultdict[str | None, list[DriftReference]] = defaultdict(list)
        self._read: dict[str | None, tuple[tuple[str, float, int], Sequence[Labelled]]] = {}
        self.moment = -math.inf

    async def window(
        self, alias: str, *, since: float, until: float | None = None, limit: int, newest: bool = False,
        labelled_only: bool = False, tag: str | None = None,
    ) -> Sequence[Labelled]:  # fmt: skip
        upto = self.moment if until is None else min(until, self.moment)
        asked = (alias, since, limit)
        known = self._read.get(tag)
        if known is not None and known[0] == asked and not newest and not labelled_only and upto >= self.moment:
            return [self._as_then(row) for row in known[1]]
        rows = await self._store.window(
            alias, since=since, until=upto, limit=limit, newest=newest, labelled_only=labelled_only, tag=tag
        )
        # What comes first after a time in the past stays the same, and a reference is read for every check.
        if not newest and not labelled_only and until is None and len(rows) == limit:
            self._read[tag] = (asked, rows)
        found = [self._as_then(row) for row in rows]
        return [row for row in found if row.feedback is not None] if labelled_only else found

    async def tags(self, alias: str, key: str, *, limit: int) -> Sequence[str]:
        return await self._store.tags(alias, key, limit=limit)

    async def add_drift_check(self, check: DriftCheck) -> None:
        kept = self._checks[check.slice]
        kept.insert(0, check)
        del kept[_KEPT:]

    async def drift_checks(
        self, alias: str | None = None, *, limit: int = 50, slice: str | None = None, verdict: str | None = None
    ) -> Sequence[DriftCheck]:
        return [check for check in self._checks[slice] if verdict in (None, check.verdict)][:limit]

    async def add_drift_reference(self, reference: DriftReference) -> None:
        kept = self._references[reference.slice]
        kept.insert(0, reference)
        del kept[_KEPT:]

    async def drift_references(
        self, alias: str, *, limit: int = 50, slice: str | None = None
    ) -> Sequence[DriftReference]:
        """Those that were pinned before the moment, and those that the replay has made."""
        pinned = [
            one
            for one in await self._store.drift_references(alias, limit=_KEPT, slice=slice)
            if one.made_at <= self.moment and one.made_by == PERSON
        ]
        return sorted([*self._references[slice], *pinned], key=lambda one: one.made_at, reverse=True)[:limit]

    def _as_then(self, row: Labelled) -> Labelled:
        late = row.feedback is not None and row.feedback.at > self.moment
        return Labelled(row.capture, None) if late else row


PERSON = "person"
"""What made a reference that somebody pinned."""
