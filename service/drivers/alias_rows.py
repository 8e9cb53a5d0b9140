"""An alias's row changes only together with its version and an audit event, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from service.core.errors import NotFound
from service.core.records import Alias
from service.drivers.audit import record_event
from service.drivers.notices import notify_routing
from service.drivers.schema import aliases

SYSTEM = "trimtab"


async def read_alias(connection: AsyncConnection, name: str, *, lock: bool = False) -> Alias:
    query = select(aliases).where(aliases.c.name == name)
    if lock:
        query = query.with_for_update(key_share=True)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound(f"There is no alias {name!r}; `trimtab aliases` lists those there are.", param="alias")
    return Alias(**row._asdict())


async def lock_alias(connection: AsyncConnection, name: str) -> Alias:
    """Always before the lock of its cycle."""
    return await read_alias(connection, name, lock=True)


async def change_alias(
    connection: AsyncConnection, alias: str, kind: str, *, actor: str, message: str, now: float,
    evidence: Mapping[str, Any], values: Mapping[str, Any], cycle_id: str | None = None,
) -> Alias:  # fmt: skip
    changed = (
        update(aliases)
        .where(aliases.c.name == alias)
        .values(**values, version=aliases.c.version + 1, updated_at=now)
        .returning(aliases)
    )
    row = (await connection.execute(changed)).one()
    await notify_routing(connection)
    await record_event(
        connection, kind, actor=actor, message=message, now=now, alias=alias, cycle_id=cycle_id, evidence=evidence
    )
    return Alias(**row._asdict())


async def set_alias_health(
    connection: AsyncConnection, alias: str, *, failures: int, latched: bool, actor: str, now: float
) -> Alias:
    counted = f"{failures} failure{'' if failures == 1 else 's'} in a row"
    told = counted + ("; latched until a person clears it." if latched else ".")
    values = {"failures": failures, "latched": latched}
    return await change_alias(
        connection, alias, "alias.health", actor=actor, message=told, now=now, evidence=values, values=values
    )
