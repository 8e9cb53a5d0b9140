"""The store: all its rooms over one database."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import select

from service.drivers.access import SqlAccess
from service.drivers.audit import SqlAudit
from service.drivers.cycles import SqlCycles
from service.drivers.database import Database, parse_url
from service.drivers.erasure import SqlErasure
from service.drivers.imported import SqlImports
from service.drivers.jobs import SqlJobs
from service.drivers.partitions import SqlPartitions
from service.drivers.registry import SqlRegistry
from service.drivers.traffic import SqlTraffic
from service.drivers.upgrade import check_version, upgrade_store

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


def _uncut(method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """A caller that is cancelled waits for what it began.

    A SQLite transaction that is cut off would keep its locks until Python's garbage collection finds its cursors.
    """

    @wraps(method)
    async def whole(*args: P.args, **kwargs: P.kwargs) -> T:
        working = asyncio.create_task(method(*args, **kwargs))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.wait({working})
            raise

    return whole


def _all_uncut(kind: type[S]) -> type[S]:
    for name, method in inspect.getmembers(kind, inspect.iscoroutinefunction):
        if not name.startswith("_"):
            setattr(kind, name, _uncut(method))
    return kind


@_all_uncut
class SqlStore(SqlRegistry, SqlTraffic, SqlErasure, SqlPartitions, SqlImports, SqlCycles, SqlAudit, SqlJobs, SqlAccess):
    """`service.ports.Store` over SQLite or PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._watched = {}

    async def ping(self) -> None:
        async with self._db.read() as connection:
            await connection.execute(select(1))

    async def close(self) -> None:
        await self._db.close()


async def open_store(url: str, *, migrate: bool = False) -> SqlStore:
    """Open the store at `url`, bringing its schema to this version first if `migrate`.

    Raises:
        ConfigError: the URL is not one of a store, or the schema is not this version's.
        Unavailable: the database cannot be reached.
    """
    if migrate:
        await asyncio.to_thread(upgrade_store, url)
    else:
        await asyncio.to_thread(check_version, url)
    return SqlStore(Database(parse_url(url)))
