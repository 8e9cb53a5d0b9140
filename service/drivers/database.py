"""Connections, transactions and fences. A foreign error leaves this file only as one of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, Engine, String, Table, any_, event, exc, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from service.core.errors import BadRequest, ConfigError, StaleWrite, TrimtabError, Unavailable
from service.core.records import Lease
from service.drivers.bulk import BulkInsert
from service.drivers.failpoints import Failpoint, reach
from service.drivers.schema import leases

SQLITE = "sqlite+aiosqlite"
POSTGRESQL = "postgresql+psycopg"

_BUSY_TIMEOUT_MS = 10_000
_WRITES = "trimtab_writes"
_BATCH = 500
NOTICE_LOSS: Mapping[str, Any] = {
    "connect_timeout": 5, "tcp_user_timeout": 10_000,
    "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 2,
}  # fmt: skip
"""libpq's own defaults wait for a quarter of an hour for a server whose network is gone."""

_ADDERS_LOCK = 7_274_696_583
"""Any number that no other application locks on the same PostgreSQL database."""

_MISSING_TABLE = "42P01"
_MISSING_COLUMN = "42703"
_CONTENT_CLASSES = ("22", "23", "54")
"""SQLSTATE classes that blame the row: data exception, integrity violation, a limit of the program exceeded."""


def parse_url(url: str) -> URL:
    """Read a store's URL; raise ConfigError for one that is not SQLite's or PostgreSQL's."""
    forms = f"{SQLITE}:///path/to/trimtab.db or {POSTGRESQL}://user:password@host/database"
    try:
        parsed = make_url(url)
    except exc.ArgumentError as error:
        raise ConfigError(f"store.url is not a database URL; use {forms}.", param="store.url") from error
    if parsed.drivername not in (SQLITE, POSTGRESQL):
        raise ConfigError(f"store.url cannot start with {parsed.drivername!r}; use {forms}.", param="store.url")
    if parsed.drivername == SQLITE and parsed.database in (None, "", ":memory:"):
        raise ConfigError(f"store.url names no file, and several processes share the store; use {forms}.")
    return parsed


class Unkeepable(Exception):
    """A value that no column can hold."""


def dump_json(value: Any) -> str:
    """JSON text; numbers that are not finite become null, since JSON has no word for them."""
    return msgspec.json.encode(value, enc_hook=_plain).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise Unkeepable(f"JSON has no form for {type(value).__name__}")


def prepare_sqlite(engine: Engine) -> None:
    """Foreign keys, and transactions that SQLite begins when and how we say. (WAL is a property of the file.)"""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout = {_BUSY_TIMEOUT_MS}",
            "synchronous = NORMAL",
            "foreign_keys = ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads first and then writes would fail at once when another writer came between.
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def for_writing(engine: Engine) -> Engine:
    """The same engine, whose transactions take SQLite's write lock when they begin."""
    return engine.execution_options(**{_WRITES: True})


@contextmanager
def foreign_errors() -> Iterator[None]:
    """Translate what the database, its driver and SQLAlchemy raise.

    Raises:
        BadRequest: the database refuses a row for its content; trying it again is no use.
        Unavailable: the store is away or busy; trying again makes sense.
        ConfigError: the schema is not the one this version needs.
    """
    try:
        yield
    except (exc.SQLAlchemyError, UnicodeError, OverflowError, OSError, Unkeepable) as error:
        raise _translate(error) from error


def _translate(error: Exception) -> TrimtabError:
    cause = error.orig if isinstance(error, exc.StatementError) and error.orig is not None else error
    why = (str(cause).splitlines() or [type(cause).__name__])[0]  # The next lines may hold the row, a client's text.
    state = getattr(cause, "sqlstate", None) or ""
    if state in (_MISSING_TABLE, _MISSING_COLUMN) or why.startswith(("no such table", "no such column")):
        return ConfigError(f"The store's schema does not fit this version ({why}); run `trimtab db upgrade`.")
    by_content = isinstance(error, exc.DataError | exc.IntegrityError | UnicodeError | OverflowError | Unkeepable)
    unbindable = isinstance(error, exc.StatementError) and not isinstance(error, exc.DBAPIError)
    if by_content or unbindable or state[:2] in _CONTENT_CLASSES:
        return BadRequest(f"The store refuses this row for its content: {why}.", code="refused_row")
    return Unavailable(f"The store cannot be used now ({why}); check store.url and the database.", retry_after_s=1.0)


class Database:
    """One engine; `read` gives a snapshot, `write` a transaction that commits whole or not at all."""

    def __init__(self, url: URL) -> None:
        self.is_sqlite = url.drivername == SQLITE
        if self.is_sqlite:
            engine = create_async_engine(
                url, json_serializer=dump_json, json_deserializer=msgspec.json.decode, pool_size=4, max_overflow=4
            )
            prepare_sqlite(engine.sync_engine)
            self._reader = engine
        else:
            engine = create_async_engine(
                url,
                json_serializer=dump_json,
                json_deserializer=msgspec.json.decode,
                pool_size=4,
                max_overflow=4,
                pool_pre_ping=True,
                connect_args=NOTICE_LOSS,
            )
            self._reader = engine.execution_options(isolation_level="REPEATABLE READ")
        self._engine = engine
        self._bulk: dict[str, BulkInsert] = {}
        self._writer = engine.execution_options(**{_WRITES: True})
        # SQLite's own wait for its write lock is a poll with growing pauses; in this process we queue instead.
        self._turn: AbstractAsyncContextManager[Any] = asyncio.Lock() if self.is_sqlite else nullcontext()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """All selects within see one moment of the store."""
        with foreign_errors():
            async with self._reader.begin() as connection:
                yield connection

    @asynccontextmanager
    async def write(self, fence: Lease | None = None) -> AsyncIterator[AsyncConnection]:
        """Commit at the end, or nothing; StaleWrite when `fence` has been overtaken."""
        with foreign_errors():
            async with self._turn, self._writer.begin() as connection:
                if fence is not None:
                    await _check_fence(connection, fence)
                reach(Failpoint.STORE_BEGUN)
                yield connection
                reach(Failpoint.STORE_WRITTEN)
            reach(Failpoint.STORE_COMMITTED)

    def insert(self, table: Table) -> postgresql.Insert | sqlite.Insert:
        """An INSERT that knows ON CONFLICT."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def bulk_insert(self, table: Table, columns: Sequence[Column[Any]]) -> BulkInsert:
        """The statement that adds records with these columns; made once."""
        found = self._bulk.get(table.name)
        if found is None:
            found = BulkInsert(self.insert(table), columns, self._engine.dialect)
            self._bulk[table.name] = found
        return found

    def among(self, column: Column[str], values: Sequence[str]) -> ColumnElement[bool]:
        """Whether the column is one of many values, which are one parameter and not as many."""
        if self.is_sqlite:
            return column.in_(select(func.json_each(dump_json(values)).table_valued("value").c.value))
        return column == any_(literal(list(values), postgresql.ARRAY(String)))

    async def add(self, connection: AsyncConnection, table: Table, values: Mapping[str, Any]) -> bool:
        """Insert the row unless one of its keys is taken; whether it was inserted."""
        adding = self.insert(table).values(values).on_conflict_do_nothing().returning(*table.primary_key)
        return (await connection.execute(adding)).one_or_none() is not None

    async def note_adder(self, connection: AsyncConnection) -> None:
        """Until this transaction ends, `wait_for_adders` waits for it. (SQLite has one writer at a time anyway.)"""
        if not self.is_sqlite:
            await connection.execute(select(func.pg_advisory_xact_lock_shared(_ADDERS_LOCK)))

    async def wait_for_adders(self, connection: AsyncConnection) -> None:
        """Return once every transaction that adds traffic has ended; new ones wait for the end of this one."""
        if not self.is_sqlite:
            await connection.execute(select(func.pg_advisory_xact_lock(_ADDERS_LOCK)))

    async def close(self) -> None:
        await self._engine.dispose()


def batches(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many at a time as one statement and one short transaction should see."""
    for start in range(0, len(values), _BATCH):
        yield values[start : start + _BATCH]


async def _check_fence(connection: AsyncConnection, fence: Lease) -> None:
    # The share lock keeps a new holder out until this transaction has ended.
    held = select(leases.c.epoch).where(leases.c.name == fence.name).with_for_update(read=True)
    epoch = (await connection.execute(held)).scalar_one_or_none()
    if epoch != fence.epoch:
        raise StaleWrite(
            f"{fence.holder!r} wrote under epoch {fence.epoch} of the lease {fence.name!r}, which now is at "
            f"{epoch or 'none'}; another controller leads, so this one must stop acting."
        )
