"""The store: all its rooms over one database, and its schema's version."""

from __future__ import annotations

import asyncio
import fcntl
import inspect
import os
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.engine import URL

from service.core.errors import ConfigError, Unavailable
from service.drivers.access import SqlAccess
from service.drivers.audit import SqlAudit
from service.drivers.cycles import SqlCycles
from service.drivers.database import SQLITE, Database, for_writing, foreign_errors, parse_url, prepare_sqlite
from service.drivers.jobs import SqlJobs
from service.drivers.registry import SqlRegistry
from service.drivers.traffic import SqlTraffic

_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 7_274_696_582
"""Any number that no other application locks on the same PostgreSQL database."""


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
class SqlStore(SqlRegistry, SqlTraffic, SqlCycles, SqlAudit, SqlJobs, SqlAccess):
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
        await asyncio.to_thread(_check_version, url)
    return SqlStore(Database(parse_url(url)))


def upgrade_store(url: str) -> None:
    """Bring the schema at `url` to this version, whole or not at all; several processes may call it at once."""
    parsed = parse_url(url)
    if parsed.drivername == SQLITE:
        _make_sqlite_file(Path(str(parsed.database)))
    engine = _sync_engine(parsed)
    try:
        with foreign_errors(), for_writing(engine).begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            config = migration_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        raise ConfigError(
            f"The store cannot be upgraded: {error}; it was made by a newer version of Trimtab, so install that one."
        ) from error
    finally:
        engine.dispose()


def migration_config() -> Config:
    """Alembic's configuration; `attributes["connection"]` is where the migrations run."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


def _make_sqlite_file(path: Path) -> None:
    """Switch the file to WAL, which it remembers."""
    with foreign_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            # While one connection switches, another's attempt fails at once instead of waiting.
            fcntl.flock(folder, fcntl.LOCK_EX)
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.Error as error:
            raise Unavailable(f"The store's file {path} cannot be opened ({error}); check store.url.") from error
        finally:
            os.close(folder)


def _check_version(url: str) -> None:
    parsed = parse_url(url)
    told = parsed.render_as_string(hide_password=True)
    if parsed.drivername == SQLITE and not Path(str(parsed.database)).exists():
        raise ConfigError(f"There is no store at {told}; make it with `trimtab db upgrade`.")
    found, needed = _version(parsed), ScriptDirectory.from_config(migration_config()).get_current_head()
    if found != needed:
        raise ConfigError(
            f"The store at {told} has schema {found or 'none'}, this version needs {needed}; run `trimtab db upgrade`."
        )


def _version(url: URL) -> str | None:
    engine = _sync_engine(url)
    try:
        with foreign_errors(), engine.connect() as connection:
            if not engine.dialect.has_table(connection, "alembic_version"):
                return None
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    finally:
        engine.dispose()


def _sync_engine(url: URL) -> Engine:
    if url.drivername != SQLITE:
        return create_engine(url, connect_args={"connect_timeout": 5})
    engine = create_engine(url.set(drivername="sqlite"))
    prepare_sqlite(engine)
    return engine
