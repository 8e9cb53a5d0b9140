"""Captures, shadow replies and feedback.

A capture knows its latest feedback (`feedback_id`, `labelled`), so that a window reads only the rows that it returns.
Rows are first added and committed, then joined in a second transaction: whichever of capture and feedback commits
last sees the other, and a batch that stopped between the two is sent again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from service.core.errors import NotFound
from service.core.records import AnsweredTwice, Capture, Feedback, Labelled, PairedReply, ShadowReply
from service.drivers import schema
from service.drivers.database import Database, batches, parse_url
from service.drivers.erasure import SqlErasure, drop_erased
from service.drivers.failpoints import Failpoint, reach
from service.drivers.schema import capture_tags, captures, feedback, shadow_replies

_SERVER_ERROR = 500
_CAPTURE = [column for column in captures.columns if column.name not in ("feedback_id", "labelled")]
_FEEDBACK = list(feedback.columns)
_SHADOW = list(shadow_replies.columns)
_SERVED = (captures.c.status.between(200, 299), captures.c.error.is_(None))


class SqlTraffic:
    """`service.ports.Traffic` over SQL."""

    _db: Database

    async def add_captures(self, captures: Sequence[Capture]) -> None:
        async with self._db.write() as connection:
            await self._db.bulk_insert(schema.captures, _CAPTURE).add(connection, captures)
            if tags := [one for capture in captures for one in _tagged(capture)]:
                await self._db.bulk_insert(capture_tags, list(capture_tags.columns)).add(connection, tags)
            await drop_erased(self._db, connection, [capture.request_id for capture in captures])
        reach(Failpoint.CAPTURES_ADDED)
        await self._join_feedback([capture.request_id for capture in captures])

    async def add_shadow_replies(self, replies: Sequence[ShadowReply]) -> None:
        async with self._db.write() as connection:
            await self._db.bulk_insert(shadow_replies, _SHADOW).add(connection, replies)
            await drop_erased(self._db, connection, [reply.request_id for reply in replies])

    async def add_feedback(self, feedback: Sequence[Feedback]) -> None:
        async with self._db.write() as connection:
            await self._db.bulk_insert(schema.feedback, _FEEDBACK).add(connection, feedback)
            await drop_erased(self._db, connection, [one.request_id for one in feedback])
        await self._join_feedback([one.request_id for one in feedback])

    async def window(
        self, alias: str, *, since: float, until: float | None = None, limit: int, newest: bool = False,
        labelled_only: bool = False, tag: str | None = None,
    ) -> Sequence[Labelled]:  # fmt: skip
        query = _of_alias(_labelled_select(), alias, since, labelled_only=labelled_only).limit(limit)
        along = captures.c if tag is None else capture_tags.c
        if tag is not None:
            key, _, value = tag.partition("=")
            borne = (along.alias == alias, along.key == key, along.value == value, along.at > since)
            query = query.where(along.request_id == captures.c.request_id, *borne)
        if until is not None:
            query = query.where(along.at <= until)
        if newest:
            query = query.order_by(along.at.desc(), along.request_id.desc())
        else:
            query = query.order_by(along.at, along.request_id)
        async with self._db.read() as connection:
            found = [_labelled(row) for row in await connection.execute(query)]
        return found[::-1] if newest else found

    async def tags(self, alias: str, key: str, *, limit: int) -> Sequence[str]:
        """One step along the index for each tag, however many requests bear it."""
        found: list[str] = []
        column = capture_tags.c.value
        lowest = select(func.min(column)).where(capture_tags.c.alias == alias, capture_tags.c.key == key)
        async with self._db.read() as connection:
            value = (await connection.execute(lowest)).scalar_one_or_none()
            while value is not None and len(found) < limit:
                found.append(f"{key}={value}")
                value = (await connection.execute(lowest.where(column > value))).scalar_one_or_none()
        return found

    async def paired(self, alias: str, candidate: str, *, since: float, limit: int) -> Sequence[PairedReply]:
        """Failed replies of either side make no pair."""
        both = captures.join(feedback, feedback.c.id == captures.c.feedback_id).join(
            shadow_replies, shadow_replies.c.request_id == captures.c.request_id
        )
        query = _of_alias(select(*_CAPTURE, *_FEEDBACK, *_SHADOW).select_from(both), alias, since, labelled_only=True)
        query = (
            query.where(
                captures.c.adapter != candidate,
                shadow_replies.c.candidate == candidate,
                shadow_replies.c.status.between(200, 299),
                shadow_replies.c.error.is_(None),
            )
            .order_by(captures.c.at, captures.c.request_id)
            .limit(limit)
        )
        async with self._db.read() as connection:
            rows = (await connection.execute(query)).all()
        return [PairedReply(_capture(row), _feedback(row), _shadow(row)) for row in rows]

    async def beside(self, alias: str, candidate: str, *, since: float, limit: int) -> Sequence[AnsweredTwice]:
        both = captures.join(shadow_replies, shadow_replies.c.request_id == captures.c.request_id)
        query = _of_alias(select(*_CAPTURE, *_SHADOW).select_from(both), alias, since, labelled_only=False)
        query = (
            query.where(captures.c.adapter != candidate, shadow_replies.c.candidate == candidate)
            .order_by(captures.c.at, captures.c.request_id)
            .limit(limit)
        )
        async with self._db.read() as connection:
            rows = (await connection.execute(query)).all()
        return [AnsweredTwice(_capture(row), ShadowReply(*row[len(_CAPTURE) :])) for row in rows]

    async def failed(self, alias: str, adapter: str, *, since: float, limit: int) -> Sequence[bool]:
        query = (
            select(captures.c.status >= _SERVER_ERROR)
            .where(captures.c.alias == alias, captures.c.at > since, captures.c.adapter == adapter)
            .order_by(captures.c.at, captures.c.request_id)
            .limit(limit)
        )
        async with self._db.read() as connection:
            return [bool(found) for found in (await connection.execute(query)).scalars()]

    async def capture(self, request_id: str) -> Labelled:
        async with self._db.read() as connection:
            query = _labelled_select().where(captures.c.request_id == request_id)
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise NotFound(
                f"There is no request {request_id!r}; captures arrive a moment after the reply.", param="request_id"
            )
        return _labelled(row)

    async def count(self, alias: str, *, since: float, labelled_only: bool = False) -> int:
        """Successful captures after `since`."""
        query = _of_alias(select(func.count()).select_from(captures), alias, since, labelled_only=labelled_only)
        async with self._db.read() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def _join_feedback(self, request_ids: Sequence[str]) -> None:
        for batch in batches(request_ids):
            async with self._db.write() as connection:
                await _join(connection, self._db.among(feedback.c.request_id, batch))


class TrafficStore(SqlTraffic, SqlErasure):
    """The traffic alone, of a store whose schema somebody else has checked: a third of what the whole store weighs."""

    def __init__(self, url: str) -> None:
        self._db = Database(parse_url(url))

    async def close(self) -> None:
        await self._db.close()


async def _join(connection: AsyncConnection, of_requests: ColumnElement[bool]) -> None:
    told = select(feedback.c.request_id).where(of_requests)
    # Locked first: the update then sees all feedback that was committed before the lock was granted.
    locking = (
        select(captures.c.request_id)
        .where(captures.c.request_id.in_(told))
        .order_by(captures.c.request_id)
        .with_for_update()
    )
    found = list((await connection.execute(locking)).scalars())
    if not found:
        return
    newest = (
        select(feedback)
        .where(feedback.c.request_id == captures.c.request_id)
        .order_by(feedback.c.at.desc(), feedback.c.id.desc())
        .limit(1)
        .correlate(captures)
    )
    is_label = or_(feedback.c.rating.is_not(None), feedback.c.expected.is_not(None))
    await connection.execute(
        update(captures)
        .where(captures.c.request_id.in_(found))
        .values(
            feedback_id=newest.with_only_columns(feedback.c.id).scalar_subquery(),
            labelled=newest.with_only_columns(is_label).scalar_subquery(),
        )
    )


@dataclass(frozen=True, slots=True)
class _Tagged:
    """A row of `capture_tags`."""

    request_id: str
    key: str
    value: str
    alias: str
    at: float


def _tagged(capture: Capture) -> Iterator[_Tagged]:
    for key, value in capture.tags.items():
        yield _Tagged(capture.request_id, key, value, capture.alias, capture.at)


def _labelled_select() -> Select[Any]:
    joined = captures.outerjoin(feedback, feedback.c.id == captures.c.feedback_id)
    return select(*_CAPTURE, *_FEEDBACK).select_from(joined)


def _of_alias(query: Select[Any], alias: str, since: float, *, labelled_only: bool) -> Select[Any]:
    query = query.where(captures.c.alias == alias, captures.c.at > since, *_SERVED)
    return query.where(captures.c.labelled.is_(True)) if labelled_only else query


def _capture(row: Row[Any]) -> Capture:
    return Capture(*row[: len(_CAPTURE)])


def _feedback(row: Row[Any]) -> Feedback:
    return Feedback(*row[len(_CAPTURE) : len(_CAPTURE) + len(_FEEDBACK)])


def _shadow(row: Row[Any]) -> ShadowReply:
    return ShadowReply(*row[len(_CAPTURE) + len(_FEEDBACK) :])


def _labelled(row: Row[Any]) -> Labelled:
    return Labelled(_capture(row), None if row[len(_CAPTURE)] is None else _feedback(row))
