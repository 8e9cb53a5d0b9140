"""The schema that the migrations build is the schema that the code declares."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from service.core.errors import ConfigError, TrimtabError
from service.drivers.schema import metadata
from service.drivers.store import open_store
from service.drivers.upgrade import migration_config, newest_version, upgrade_store

HEAD = "audit_head"
"""The one table that a migration fills itself."""


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'new' / 'trimtab.db'}"
    url: str = request.getfixturevalue("empty_postgres")
    return url


def sync_engine(url: str) -> sa.Engine:
    return sa.create_engine(url.replace("+aiosqlite", ""))


def constraints(engine: sa.Engine) -> dict[str, Any]:
    """What Alembic does not compare: checks, keys and partial indexes."""
    inspector = sa.inspect(engine)
    return {
        table: (
            sorted((check["name"], check["sqltext"]) for check in inspector.get_check_constraints(table)),
            sorted((key["name"], key["referred_table"]) for key in inspector.get_foreign_keys(table)),
            sorted(str(key["column_names"]) for key in inspector.get_unique_constraints(table)),
            sorted((str(index["name"]), index["unique"], str(index["column_names"]), _where(index))
                   for index in inspector.get_indexes(table)),
        )
        for table in inspector.get_table_names()
        if table != "alembic_version" and not _is_partition(table)
    }  # fmt: skip


def _default_differs(_context: Any, _inspected: Any, column: sa.Column[Any], *defaults: Any) -> bool | None:
    """PostgreSQL cannot compare JSON, so its defaults are compared as text; the rest by Alembic (None)."""
    if not isinstance(column.type, sa.JSON):
        return None
    inspected, declared = (str(one or "").partition("::")[0] for one in (defaults[0], defaults[2]))
    return inspected != declared


def _is_partition(table: str | None) -> bool:
    return table is not None and table.startswith("captures_")


def _where(index: Any) -> list[str]:
    return sorted(f"{key}: {value}" for key, value in index["dialect_options"].items())


def test_migrations_build_the_declared_schema(empty_url: str, tmp_path: Path) -> None:
    upgrade_store(empty_url)
    engine = sync_engine(empty_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "compare_server_default": _default_differs,
                "include_name": lambda name, kind, _parents: kind != "table" or not _is_partition(name),
            },
        )
        assert compare_metadata(context, metadata) == []
    migrated = constraints(engine)
    with engine.begin() as connection:
        command_config = migration_config()
        command_config.attributes["connection"] = connection
        command.downgrade(command_config, "base")
    assert constraints(engine) == {}
    metadata.create_all(engine)
    assert constraints(engine) == migrated
    engine.dispose()


def test_the_newest_version_is_the_one_that_alembic_ends_at() -> None:
    assert newest_version() == ScriptDirectory.from_config(migration_config()).get_current_head()


def test_a_store_of_this_version_is_opened_without_alembic(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'trimtab.db'}"
    upgrade_store(url)
    code = f"""
import asyncio, sys
from service.drivers.store import open_store
asyncio.run(asyncio.wait_for(open_store({url!r}, migrate=True), 30))
assert "alembic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_processes_may_migrate_at_once(empty_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upgrade_store, [empty_url] * 4))
    engine = sync_engine(empty_url)
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).all() == [("0040",)]
    engine.dispose()


def test_a_migration_that_fails_leaves_nothing(empty_url: str) -> None:
    if empty_url.startswith("sqlite"):
        Path(empty_url.removeprefix("sqlite+aiosqlite:///")).parent.mkdir()
    engine = sync_engine(empty_url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE jobs (other INTEGER)"))
    with pytest.raises(TrimtabError, match="jobs"):
        upgrade_store(empty_url)
    assert sa.inspect(engine).get_table_names() == ["jobs"]
    engine.dispose()


async def test_a_store_without_its_schema_says_what_to_do(empty_url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trimtab db upgrade"):
        await open_store(empty_url)
    assert not (tmp_path / "new").exists()
    store = await open_store(empty_url, migrate=True)
    await store.ping()
    await store.close()
    engine = sync_engine(empty_url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(ConfigError, match="has schema 9999, this version needs 0040"):
        await open_store(empty_url)


async def test_a_store_made_by_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "trimtab.db"
    upgrade_store(f"sqlite+aiosqlite:///{path}")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigError, match="9999"):
        upgrade_store(f"sqlite+aiosqlite:///{path}")


def test_keys_made_before_limits_have_none(empty_url: str) -> None:
    upgrade_store(empty_url)
    engine = sync_engine(empty_url)
    with engine.begin() as connection:
        config = migration_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
        connection.execute(
            sa.text(
                "INSERT INTO keys (id, name, sha256, scopes, created_at) VALUES ('k', 'app', 'x', '[\"infer\"]', 1)"
            )
        )
    upgrade_store(empty_url)
    with engine.connect() as connection:
        row = connection.execute(sa.text("SELECT id, requests_per_minute, tokens_per_minute FROM keys")).one()
    assert tuple(row) == ("k", None, None)
    engine.dispose()


def versions_before() -> list[str]:
    """Of the schema: all that a store may have been left at, oldest first."""
    found = ScriptDirectory.from_config(migration_config()).walk_revisions()
    return [script.revision for script in found][:0:-1]


def filled(table: sa.Table) -> dict[str, Any]:
    """A row with something in every column that may hold something beside the others."""
    return {column.name: _something(column) for column in table.columns if column.name != "closed_at"}


def _something(column: sa.Column[Any]) -> Any:
    told = {"state": "open", "trigger": "drift", "phase": "training"}
    if column.table.name == "jobs":
        told["status"] = "queued"
    if column.name in told:
        return told[column.name]
    for key in column.foreign_keys:
        return f"{key.column.table.name}.{key.column.name}"
    if isinstance(column.type, sa.JSON):
        return {"told": [1, 2.5, None, "ü"]}
    given = {sa.Boolean: True, sa.Integer: 1, sa.Float: 0.5, sa.LargeBinary: b"\x00\xff"}
    return next((value for kind, value in given.items() if isinstance(column.type, kind)), str(column))


@pytest.mark.parametrize("version", versions_before())
def test_data_of_every_version_before_comes_along_whole(empty_url: str, version: str) -> None:
    upgrade_store(empty_url)
    engine = sync_engine(empty_url)
    with engine.begin() as connection:
        config = migration_config()
        config.attributes["connection"] = connection
        command.downgrade(config, version)
    before = sa.MetaData()
    before.reflect(engine)
    rows = {table.name: filled(table) for table in before.sorted_tables if table.name not in {"alembic_version", HEAD}}
    assert {"aliases", "adapters", "captures", "feedback", "cycles", "jobs", "events", "keys"} <= set(rows)
    with engine.begin() as connection:
        for name, row in rows.items():
            connection.execute(before.tables[name].insert().values(row))
    upgrade_store(empty_url)
    after = sa.MetaData()
    after.reflect(engine)
    with engine.connect() as connection:
        for name, row in rows.items():
            columns = [after.tables[name].c[column] for column in row]
            assert tuple(row.values()) in [tuple(found) for found in connection.execute(sa.select(*columns))]
    engine.dispose()


async def test_events_written_before_the_chain_are_chained_as_they_stand(empty_url: str) -> None:
    upgrade_store(empty_url)
    engine = sync_engine(empty_url)
    with engine.begin() as connection:
        config = migration_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0002")
        connection.execute(
            sa.text(
                "INSERT INTO aliases VALUES ('support', 'support@b', 'base', NULL, 0, 0, 1, 1.5, 1.5, 0, :no)"
            ), {"no": False},
        )  # fmt: skip
        told = '{"champion": "support@b", "p": 1e-7, "n": [1, 2.5, null, "ü"]}'
        for number in (1, 2, 5, *range(7, 1510)):  # ids with gaps, more than one batch
            connection.execute(
                sa.text(
                    "INSERT INTO events (id, at, kind, actor, message, alias, cycle_id, evidence)"
                    " VALUES (:id, :at, 'alias.promoted', 'ann', 'bétter', 'support', 'c1', :told)"
                ), {"id": number, "at": 1234567890.123456 + number, "told": told},
            )  # fmt: skip
    engine.dispose()
    upgrade_store(empty_url)
    store = await open_store(empty_url)
    await store.add_event("note", actor="me", message="the first one after", now=2.0)
    found = await store.verify_audit()
    assert (found.events, found.fault) == (1508, None)
    newest = await store.events(limit=3)
    assert [event.kind for event in newest] == ["note", "audit.chained", "alias.promoted"]
    assert "1506 events" in newest[1].message
    await store.close()
