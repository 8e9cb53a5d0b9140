"""What leaves the store for good: the traffic of a user or of one request, and traffic that is too old.

An erasure leaves a mark for its subject and for every request that it took, so that a record of theirs that still waits
in a gateway's spool is dropped when it arrives.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Table, delete, func, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from service.core.records import Erased, Seen
from service.drivers.audit import record_event
from service.drivers.database import Database, batches
from service.drivers.schema import (
    capture_tags,
    captures,
    drift_checks,
    erasures,
    feedback,
    imported_rows,
    shadow_replies,
)

_KEY = literal("key:")
_ABOUT_REQUESTS = (feedback, shadow_replies)


class SqlErasure:
    """`service.ports.Erasures` over SQL."""

    _db: Database

    async def erase(self, subject: str, *, actor: str, now: float) -> Erased:
        async with self._db.write() as connection:
            await self._db.wait_for_adders(connection)
            await mark(self._db, connection, [subject], of=subject, now=now)
        async with self._db.write() as connection:
            found = await _requests_of(connection, subject, now)
            if found:
                since = select(func.min(captures.c.at)).where(self._db.among(captures.c.request_id, found))
                if (first := (await connection.execute(since)).scalar_one()) is not None:
                    await _forget_examples(connection, first)
        removed = [0, 0, 0]
        for batch in batches([subject, *found]):
            async with self._db.write() as connection:
                await mark(self._db, connection, batch, of=subject, now=now)
                removed = [a + b for a, b in zip(removed, await forget(self._db, connection, batch), strict=True)]
        async with self._db.write() as connection:
            marked = select(erasures.c.subject).where(_of(subject)).order_by(erasures.c.subject)
            request_ids = tuple((await connection.execute(marked)).scalars())
            erased = Erased(request_ids, *removed)
            await record_event(
                connection, "traffic.erased", actor=actor, now=now, message=f"All traffic of {subject!r} was erased.",
                evidence={"subject": subject, "captures": erased.captures, "feedback": erased.feedback,
                          "shadow_replies": erased.shadow_replies},
            )  # fmt: skip
        return erased

    async def erased(self, seen: Sequence[Seen]) -> frozenset[str]:
        """At most a few hundred at a time."""
        async with self._db.read() as connection:
            subjects = [*(one.request_id for one in seen), *(one.source for one in seen if one.source)]
            query = select(erasures.c.subject, erasures.c.at).where(self._db.among(erasures.c.subject, subjects))
            marks = {row.subject: row.at for row in await connection.execute(query)}
        return frozenset(
            one.request_id
            for one in seen
            if one.request_id in marks or (one.source is not None and one.at <= marks.get(one.source, one.at - 1))
        )

    async def expire(self, alias: str, *, before: float, keep: int | None, limit: int) -> int:
        async with self._db.read() as connection:
            of_alias = select(captures.c.at).where(captures.c.alias == alias)
            if keep is not None:
                beyond = of_alias.order_by(captures.c.at.desc(), captures.c.request_id.desc()).offset(keep).limit(1)
                before = max(before, (await connection.execute(beyond)).scalar_one_or_none() or before)
            oldest = (
                select(captures.c.request_id)
                .where(captures.c.alias == alias, captures.c.at <= before)
                .order_by(captures.c.at, captures.c.request_id)
                .limit(limit)
            )
            found = list((await connection.execute(oldest)).scalars())
        for batch in batches(found):
            async with self._db.write() as connection:
                await forget(self._db, connection, batch)
        return len(found)

    async def expire_strays(self, *, before: float, limit: int) -> int:
        removed = 0
        for table in _ABOUT_REQUESTS:
            stray = ~select(captures.c.request_id).where(captures.c.request_id == table.c.request_id).exists()
            oldest = select(table.c.request_id).where(table.c.at <= before, stray).order_by(table.c.at).limit(limit)
            async with self._db.read() as connection:
                found = list(dict.fromkeys((await connection.execute(oldest)).scalars()))
            for batch in batches(found):
                async with self._db.write() as connection:
                    removed += await _delete(connection, table, self._db.among(table.c.request_id, batch))
        return removed


async def mark(db: Database, connection: AsyncConnection, subjects: Sequence[str], *, of: str, now: float) -> None:
    """From now on, what arrives of these subjects is dropped. A subject that was marked before is marked anew."""
    adding = db.insert(erasures).values([{"subject": one, "at": now, "of": of} for one in dict.fromkeys(subjects)])
    anew = adding.on_conflict_do_update(index_elements=["subject"], set_={"at": adding.excluded.at})
    await connection.execute(anew)


async def forget(db: Database, connection: AsyncConnection, request_ids: Sequence[str]) -> tuple[int, int, int]:
    """Delete captures (with their tags) or imported rows, feedback and shadow replies; how many of each."""
    told, shadows = [
        await _delete(connection, table, db.among(table.c.request_id, request_ids)) for table in _ABOUT_REQUESTS
    ]
    await _delete(connection, capture_tags, db.among(capture_tags.c.request_id, request_ids))
    rows = await _delete(connection, captures, db.among(captures.c.request_id, request_ids))
    rows += await _delete(connection, imported_rows, db.among(imported_rows.c.id, request_ids))
    return rows, told, shadows


async def drop_erased(db: Database, connection: AsyncConnection, request_ids: Sequence[str]) -> None:
    """Of records that were just added, in their transaction: delete what an erasure was meant to take along."""
    await db.note_adder(connection)
    if (await connection.execute(select(erasures.c.subject).limit(1))).one_or_none() is None:
        return
    by_request = select(erasures.c.subject).where(db.among(erasures.c.subject, request_ids))
    found = set((await connection.execute(by_request)).scalars())
    by_source = (
        select(captures.c.request_id, erasures.c.subject, erasures.c.at)
        .join(erasures, or_(erasures.c.subject == captures.c.source, erasures.c.subject == _KEY + captures.c.key_id))
        .where(db.among(captures.c.request_id, request_ids), captures.c.at <= erasures.c.at)
    )
    for request_id, source, at in (await connection.execute(by_source)).all():
        await mark(db, connection, [request_id], of=source, now=at)
        found.add(request_id)
    for batch in batches(sorted(found)):
        await forget(db, connection, batch)


def _of(subject: str) -> ColumnElement[bool]:
    return or_(erasures.c.of == subject, erasures.c.subject == subject)


async def _requests_of(connection: AsyncConnection, subject: str, now: float) -> list[str]:
    """Its requests up to `now`, and the rows that were imported from it."""
    theirs = or_(captures.c.source == subject, _KEY + captures.c.key_id == subject)
    named = or_(captures.c.request_id == subject, theirs & (captures.c.at <= now))
    imported = select(imported_rows.c.id).where(imported_rows.c.source == subject, imported_rows.c.imported_at <= now)
    found = select(captures.c.request_id).where(named).union_all(imported)
    return list((await connection.execute(found)).scalars())


async def _forget_examples(connection: AsyncConnection, since: float) -> None:
    """Example texts of checks that may have looked at the requests: nobody knows whose text an example was."""
    of_these = select(drift_checks.c.id, drift_checks.c.topics).where(drift_checks.c.at >= since)
    for check, topics in (await connection.execute(of_these)).all():
        if any(topic.get("examples") for topic in topics):
            bare = [{**topic, "examples": []} for topic in topics]
            await connection.execute(update(drift_checks).where(drift_checks.c.id == check).values(topics=bare))


async def _delete(connection: AsyncConnection, table: Table, where: ColumnElement[bool]) -> int:
    return (await connection.execute(delete(table).where(where))).rowcount
