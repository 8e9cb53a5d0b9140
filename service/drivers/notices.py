"""PostgreSQL's LISTEN and NOTIFY: gateways hear of a flip when it is committed, not when they next ask.

https://www.postgresql.org/docs/current/sql-notify.html. Whoever does not hear (SQLite, a pooler between) asks as ever.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from service.drivers.database import NOTICE_LOSS, POSTGRESQL, foreign_errors, parse_url

_CHANNEL = "trimtab_routing"


async def notify_routing(connection: AsyncConnection) -> None:
    """With this transaction's commit, tell whoever listens that an alias has changed."""
    if connection.dialect.name == "postgresql":
        await connection.execute(select(func.pg_notify(_CHANNEL, "")))


async def routing_notices(url: str) -> AsyncIterator[None]:
    """One item at the start and one for each change since; it ends only by an error, when the connection is lost."""
    import psycopg  # 5 MiB that a gateway over SQLite need not hold

    parsed = parse_url(url)
    assert parsed.drivername == POSTGRESQL
    conninfo = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
    with foreign_errors():
        try:
            connection = await psycopg.AsyncConnection.connect(conninfo, autocommit=True, **NOTICE_LOSS)
            async with connection:
                await connection.execute(f"LISTEN {_CHANNEL}")
                yield
                async for _ in connection.notifies():
                    yield
        except psycopg.Error as error:
            raise OSError(str(error)) from error
