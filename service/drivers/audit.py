"""The audit log: one chain of events, written in the transaction of what they tell, read back and verified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from service.core.audit import Audit, Link, fault_of, fault_of_end, seal, serving_after, unexplained
from service.core.errors import ConfigError
from service.core.records import Event, Lease
from service.drivers.database import Database, dump_json
from service.drivers.schema import aliases, audit_head, events, record_values

_BATCH = 1000
_BEFORE_ALL = -(2**63)


class SqlAudit:
    """`service.ports.AuditLog` over SQL."""

    _db: Database

    async def add_event(
        self, kind: str, *, actor: str, message: str, now: float, alias: str | None = None,
        cycle_id: str | None = None, evidence: Mapping[str, Any] | None = None, fence: Lease | None = None,
    ) -> None:  # fmt: skip
        async with self._db.write(fence) as connection:
            await record_event(
                connection, kind, actor=actor, message=message, now=now, alias=alias, cycle_id=cycle_id,
                evidence=evidence or {},
            )  # fmt: skip

    async def events(
        self, alias: str | None = None, *, after_id: int = 0, limit: int | None = 100, cycle_id: str | None = None,
        kinds: Sequence[str] = (),
    ) -> Sequence[Event]:  # fmt: skip
        query = select(events).where(events.c.id > after_id).order_by(events.c.id.desc()).limit(limit)
        if alias is not None:
            query = query.where(events.c.alias == alias)
        if cycle_id is not None:
            query = query.where(events.c.cycle_id == cycle_id)
        if kinds:
            query = query.where(events.c.kind.in_(kinds))
        async with self._db.read() as connection:
            return [Event(**row._asdict()) for row in await connection.execute(query)]

    async def verify_audit(self, *, noted: str | None = None) -> Audit:
        async with self._db.read() as connection:
            head = await _head(connection)
            last, count, seen, served = Link(), 0, noted is None, dict[str, str]()
            cursor = _BEFORE_ALL
            while batch := await _after(connection, cursor):
                cursor = batch[-1].id
                for event in batch:
                    if fault := fault_of(event, last):
                        return Audit(count, head, event.id, fault)
                    last, count = Link(event.id, event.hash), count + 1
                    seen = seen or event.hash == noted
                    if event.alias is not None and (adapter := serving_after(event)):
                        served[event.alias] = adapter
            if fault := fault_of_end(last, head):
                return Audit(count, head, last.event_id, fault)
            if not seen:
                return Audit(count, head, 1, "the chain does not hold the head that was noted: it was made anew")
            rows = await connection.execute(select(aliases.c.name, aliases.c.champion))
            return Audit(count, head, fault=unexplained({row.name: row.champion for row in rows}, served))


async def record_event(
    connection: AsyncConnection, kind: str, *, actor: str, message: str, now: float, alias: str | None = None,
    cycle_id: str | None = None, evidence: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write the next event of the chain in the caller's transaction.

    It locks the head until that transaction ends, so let it be the last lock that is taken.
    """
    head = await _head(connection, lock=True)
    told = msgspec.json.decode(dump_json(evidence))  # as it will be read back
    event = seal(Event(head.event_id + 1, now, kind, actor, message, alias, cycle_id, told), head)
    await connection.execute(insert(events).values(record_values(events, event)))
    await connection.execute(update(audit_head).values(event_id=event.id, hash=event.hash))


async def _head(connection: AsyncConnection, *, lock: bool = False) -> Link:
    query = select(audit_head.c.event_id, audit_head.c.hash)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise ConfigError("The audit log's head is gone from the table audit_head; restore the store from a backup.")
    return Link(*row)


async def _after(connection: AsyncConnection, event_id: int) -> Sequence[Event]:
    query = select(events).where(events.c.id > event_id).order_by(events.c.id).limit(_BATCH)
    return [Event(**row._asdict()) for row in await connection.execute(query)]
