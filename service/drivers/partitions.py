"""On PostgreSQL a table a week holds the captures: indexes in use stay small, and an old week leaves as a file.

`captures_before` holds what was there before weeks were, `captures_rest` what no other table takes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.drivers.database import Database

WEEK_S = 604_800
AHEAD = 4
"""Weeks that are made ahead: so long may no controller run before captures go to the rest."""

_REST = "captures_rest"
_END = re.compile(r"TO \('?([0-9.e+]+)'?\)")


@dataclass(frozen=True, slots=True)
class Week:
    """A table for `start` ≤ at < `end`, Unix seconds."""

    start: int

    @property
    def end(self) -> int:
        return self.start + WEEK_S

    @property
    def table(self) -> str:
        return f"captures_{datetime.fromtimestamp(self.start, UTC):%Y%m%d}"


def weeks_ahead(now: float) -> list[Week]:
    """This week and the next ones."""
    this = int(now // WEEK_S) * WEEK_S
    return [Week(this + ahead * WEEK_S) for ahead in range(AHEAD + 1)]


class SqlPartitions:
    """`service.ports.Partitions`; SQLite has one table and nothing to tend."""

    _db: Database

    async def tend_partitions(self, *, now: float) -> None:
        if self._db.is_sqlite:
            return
        async with self._db.read() as connection:
            ends = await _ends(connection)
        last = max(ends.values(), default=0.0)
        for week in weeks_ahead(now):
            if week.start >= last:
                async with self._db.write() as connection:
                    await _add(connection, week)
        for table, end in ends.items():
            if end < now - WEEK_S:
                async with self._db.write() as connection:
                    await _drop_if_empty(connection, table)


async def _ends(connection: AsyncConnection) -> dict[str, float]:
    """When each table's time ends."""
    bounds = text(
        "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bound FROM pg_inherits i "
        "JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'captures'::regclass"
    )
    found = {row.relname: _END.search(row.bound) for row in await connection.execute(bounds)}
    return {table: float(end[1]) for table, end in found.items() if end is not None}


async def _add(connection: AsyncConnection, week: Week) -> None:
    """Attached and not created in place: that would lock out everybody else's reads and writes."""
    await _wait_briefly(connection)
    strays = text(f"SELECT 1 FROM {_REST} WHERE at >= {week.start} AND at < {week.end} LIMIT 1")
    if (await connection.execute(strays)).one_or_none() is not None:
        return  # A table cannot take over what the rest has; it keeps that week whole.
    await connection.execute(text(f"CREATE TABLE {week.table} (LIKE captures INCLUDING DEFAULTS)"))
    await connection.execute(
        text(f"ALTER TABLE captures ATTACH PARTITION {week.table} FOR VALUES FROM ({week.start}) TO ({week.end})")
    )


async def _drop_if_empty(connection: AsyncConnection, table: str) -> None:
    """Retention has emptied it; what still comes for its time goes to the rest."""
    await _wait_briefly(connection)
    await connection.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
    if (await connection.execute(text(f"SELECT 1 FROM {table} LIMIT 1"))).one_or_none() is None:
        await connection.execute(text(f"DROP TABLE {table}"))


async def _wait_briefly(connection: AsyncConnection) -> None:
    """Whoever waits for a lock makes all others wait behind it."""
    await connection.execute(text("SET LOCAL lock_timeout = '2s'"))
