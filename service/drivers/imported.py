"""Imported examples: apart from the traffic, so that neither drift nor a quality that clients saw is made of them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from service.core.errors import NotFound
from service.core.records import ImportedRow
from service.drivers.database import Database
from service.drivers.schema import erasures, imported_rows

_BATCH = 500


class SqlImports:
    """`service.ports.Imports` over SQL."""

    _db: Database

    async def add_imported(self, rows: Sequence[ImportedRow]) -> int:
        added = 0
        for start in range(0, len(rows), _BATCH):
            batch = list({row.id: row for row in rows[start : start + _BATCH]}.values())
            async with self._db.write() as connection:
                there = select(imported_rows.c.id).where(self._db.among(imported_rows.c.id, [row.id for row in batch]))
                known = frozenset((await connection.execute(there)).scalars())
                gone = select(erasures.c.subject).where(self._db.among(erasures.c.subject, [row.id for row in batch]))
                known |= frozenset((await connection.execute(gone)).scalars())
                fresh = [row for row in batch if row.id not in known]
                await self._db.bulk_insert(imported_rows, list(imported_rows.columns)).add(connection, fresh)
            added += len(fresh)
        return added

    async def imported(
        self, alias: str, *, since: float, until: float | None = None, limit: int
    ) -> Sequence[ImportedRow]:
        query = select(imported_rows).where(imported_rows.c.alias == alias, imported_rows.c.at > since)
        if until is not None:
            query = query.where(imported_rows.c.at <= until)
        query = query.order_by(imported_rows.c.at.desc(), imported_rows.c.id.desc()).limit(limit)
        async with self._db.read() as connection:
            found = [ImportedRow(*row) for row in await connection.execute(query)]
        return found[::-1]

    async def imported_row(self, row_id: str) -> ImportedRow:
        async with self._db.read() as connection:
            query = select(imported_rows).where(imported_rows.c.id == row_id)
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise NotFound(f"There is no imported row {row_id!r}; `trimtab label import` adds them.")
        return ImportedRow(*row)
