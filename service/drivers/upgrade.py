"""The schema's version: what the store has, what this version needs, and the way from one to the other."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import URL

from service.core.errors import ConfigError, Unavailable
from service.drivers.database import SQLITE, for_writing, foreign_errors, parse_url, prepare_sqlite

if TYPE_CHECKING:
    from alembic.config import Config

_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 7_274_696_582
"""Any number that no other application locks on the same PostgreSQL database."""


def upgrade_store(url: str) -> None:
    """Bring the schema at `url` to this version, whole or not at all; several processes may call it at once.

    Alembic is loaded only where there is something to do: 12 MiB and a third of a second of each start.
    """
    parsed = parse_url(url)
    if parsed.drivername == SQLITE:
        _make_sqlite_file(Path(str(parsed.database)))
    if _version(parsed) != newest_version():
        _migrate(parsed)


def _migrate(parsed: URL) -> None:
    from alembic import command
    from alembic.util import CommandError

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
    from alembic.config import Config

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


def newest_version() -> str:
    """The schema that this version of Trimtab needs: migrations are numbered, and their files named by their number."""
    return max(path.name.split("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py"))


def check_version(url: str) -> None:
    """Raise ConfigError, saying what to do, unless the store at `url` has this version's schema."""
    parsed = parse_url(url)
    told = parsed.render_as_string(hide_password=True)
    if parsed.drivername == SQLITE and not Path(str(parsed.database)).exists():
        raise ConfigError(f"There is no store at {told}; make it with `trimtab db upgrade`.")
    found, needed = _version(parsed), newest_version()
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
