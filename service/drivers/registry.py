"""Adapters, aliases, engines. An alias changes only together with its version and an audit event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from service.core.cycle import CycleState
from service.core.errors import Conflict, LockedOut, NotFound, locked_out
from service.core.names import BASE, check_alias
from service.core.records import Adapter, Alias, Cycle, EngineView, Lease
from service.core.routing import RoutingTable
from service.drivers import schema
from service.drivers.alias_rows import SYSTEM, change_alias, lock_alias, read_alias, set_alias_health
from service.drivers.audit import record_event
from service.drivers.cycles import move_cycle, open_cycle_of
from service.drivers.database import Database
from service.drivers.schema import adapters, aliases, cycles, engines, record_values


class SqlRegistry:
    """`service.ports.Registry` over SQL."""

    _db: Database

    async def add_alias(self, name: str, *, champion: str = BASE, now: float) -> Alias:
        alias = Alias(check_alias(name), champion, updated_at=now, reference_since=now)
        values = record_values(aliases, alias)
        async with self._db.write() as connection:
            await _check_adapter(connection, champion)
            if await self._db.add(connection, aliases, values):
                await record_event(
                    connection, "alias.created", actor=SYSTEM, message=f"{name!r} serves {champion!r}.", now=now,
                    alias=name, evidence={"champion": champion},
                )  # fmt: skip
            return await read_alias(connection, name)

    async def alias(self, name: str) -> Alias:
        async with self._db.read() as connection:
            return await read_alias(connection, name)

    async def aliases(self) -> Sequence[Alias]:
        async with self._db.read() as connection:
            rows = await connection.execute(select(aliases).order_by(aliases.c.name))
            return [Alias(**row._asdict()) for row in rows]

    async def add_adapter(self, adapter: Adapter) -> None:
        async with self._db.write() as connection:
            if await self._db.add(connection, adapters, record_values(adapters, adapter)):
                await record_event(
                    connection, "adapter.added", actor=SYSTEM, message=f"{adapter.name!r} is registered.",
                    now=adapter.created_at, alias=adapter.alias, cycle_id=adapter.cycle_id,
                    evidence={"adapter": adapter.name, "digest": adapter.digest, "base_digest": adapter.base_digest},
                )  # fmt: skip
                return
            kept = await _adapter(connection, adapter.name)
            if kept.digest != adapter.digest:
                raise Conflict(f"{adapter.name!r} names other content ({kept.digest}); names are never used twice.")

    async def adapter(self, name: str) -> Adapter:
        async with self._db.read() as connection:
            return await _adapter(connection, name)

    async def adapters(self, alias: str | None = None) -> Sequence[Adapter]:
        query = select(adapters).order_by(adapters.c.created_at.desc(), adapters.c.name)
        if alias is not None:
            query = query.where(adapters.c.alias == alias)
        async with self._db.read() as connection:
            return [Adapter(**row._asdict()) for row in await connection.execute(query)]

    async def remove_adapter(
        self, name: str, *, actor: str, reason: str, now: float, fence: Lease | None = None
    ) -> None:
        async with self._db.write(fence) as connection:
            # Whoever is about to serve it locks the row too, and then finds it gone, or is found here.
            adapter = await _adapter(connection, name, lock=True)
            if (user := await _user(connection, name)) is not None:
                raise Conflict(f"{name!r} cannot be removed: {user}; promote another one first, or end the cycle.")
            await connection.execute(delete(adapters).where(adapters.c.name == name))
            await record_event(
                connection, "adapter.removed", actor=actor, message=reason, now=now, alias=adapter.alias,
                cycle_id=adapter.cycle_id, evidence={"adapter": name, "digest": adapter.digest},
            )  # fmt: skip

    async def set_candidate(
        self, alias: str, candidate: str | None, *, mirror_ratio: float, now: float, canary_ratio: float = 0.0,
        fence: Lease | None = None,
    ) -> Alias:  # fmt: skip
        """What already is so stays as it is. NotFound for an adapter that nobody registered."""
        ratio, canary = (mirror_ratio, canary_ratio) if candidate else (0.0, 0.0)
        async with self._db.write(fence) as connection:
            current = await lock_alias(connection, alias)
            if (current.candidate, current.mirror_ratio, current.canary_ratio) == (candidate, ratio, canary):
                return current
            await _check_adapter(connection, candidate)
            told = f"{candidate!r} answers {ratio:.0%} in shadow." if candidate else "No adapter is in shadow."
            told += f" {canary:.0%} of the clients get its replies." if canary else ""
            return await change_alias(
                connection, alias, "alias.candidate", actor=fence.name if fence else SYSTEM, message=told, now=now,
                evidence={"candidate": candidate, "mirror_ratio": ratio, "canary_ratio": canary},
                values={"candidate": candidate, "mirror_ratio": ratio, "canary_ratio": canary},
            )  # fmt: skip

    async def promote(
        self, alias: str, adapter: str, *, actor: str, reason: str, now: float, reverse_ratio: float = 0.0,
        force: bool = False, fence: Lease | None = None,
    ) -> Alias:  # fmt: skip
        """What already is champion stays so, without a new version.

        Raises Conflict, where a controller promotes (`fence` is given), for what is no longer the candidate:
        somebody rolled it back meanwhile.
        """
        async with self._db.write(fence) as connection:
            current = await lock_alias(connection, alias)
            if current.champion == adapter:
                return current
            if fence is not None and current.candidate != adapter:
                raise Conflict(
                    f"{adapter!r} is not the candidate of {alias!r} any more ({current.candidate!r} is); "
                    "start a new cycle, or promote it by hand."
                )
            if (why := await _why_locked(connection, adapter)) is not None:
                if not force:
                    raise locked_out(alias, adapter, why)
                await _set_lock(connection, adapter, None)
            cycle = await open_cycle_of(connection, alias)
            reverse = current.champion if reverse_ratio > 0.0 else None
            evidence = {"champion": adapter, "previous": current.champion}
            return await change_alias(
                connection, alias, "alias.promoted", actor=actor, message=reason, now=now,
                evidence=evidence | ({"forced": why} if why else {}),
                cycle_id=cycle.id if cycle and cycle.candidate == adapter else None,
                values={
                    "champion": adapter, "previous": current.champion, "candidate": reverse,
                    "mirror_ratio": reverse_ratio, "canary_ratio": 0.0, "reference_since": now, "failures": 0,
                },
            )  # fmt: skip

    async def rollback(
        self, alias: str, *, actor: str, reason: str, now: float, lock: bool = False, fence: Lease | None = None
    ) -> Alias:
        async with self._db.write(fence) as connection:
            current = await lock_alias(connection, alias)
            cycle = await open_cycle_of(connection, alias)
            if cycle is None and current.previous is None:
                raise Conflict(f"{alias!r} has neither an open cycle nor a previous adapter to roll back to.")
            values: dict[str, Any] = {"candidate": None, "mirror_ratio": 0.0, "canary_ratio": 0.0}
            if fence is not None:
                values["failures"] = current.failures + 1
            if current.previous is not None and _has_promoted(cycle, current):
                if (why := await _why_locked(connection, current.previous)) is not None:
                    raise LockedOut(
                        f"{alias!r} came back from {current.previous!r}, which is locked out: {why} "
                        "Promote another one."
                    )
                values |= {"champion": current.previous, "previous": current.champion, "reference_since": now}
            evidence = {"from": current.champion, "to": values.get("champion", current.champion)}
            if lock and "champion" in values and current.champion != BASE:
                await _set_lock(connection, current.champion, reason)
                evidence["locked"] = current.champion
            if cycle is not None:
                await move_cycle(
                    connection, cycle, CycleState.ROLLED_BACK, reason=reason, now=now, actor=actor,
                    evidence={"rollback": evidence},
                )  # fmt: skip
            return await change_alias(
                connection, alias, "alias.rolled_back", actor=actor, message=reason, now=now,
                evidence=evidence, values=values, cycle_id=cycle.id if cycle else None,
            )  # fmt: skip

    async def set_health(
        self, alias: str, *, failures: int, latched: bool, now: float, fence: Lease | None = None
    ) -> Alias:
        async with self._db.write(fence) as connection:
            current = await lock_alias(connection, alias)
            if (current.failures, current.latched) == (failures, latched):
                return current
            actor = fence.name if fence else SYSTEM
            return await set_alias_health(connection, alias, failures=failures, latched=latched, actor=actor, now=now)

    async def report_engines(self, engines: Sequence[EngineView], *, fence: Lease | None = None) -> None:
        table = schema.engines
        views = [record_values(table, view) | {"resident": sorted(view.resident)} for view in engines]
        async with self._db.write(fence) as connection:
            await connection.execute(delete(table).where(table.c.url.not_in([view["url"] for view in views])))
            if views:
                upsert = self._db.insert(table)
                fresh = {column.name: upsert.excluded[column.name] for column in table.columns}
                await connection.execute(upsert.on_conflict_do_update(index_elements=[table.c.url], set_=fresh), views)

    async def routing(self) -> RoutingTable:
        async with self._db.read() as connection:
            alias_rows = await connection.execute(select(aliases))
            adapter_rows = await connection.execute(select(adapters.c.name, adapters.c.alias))
            engine_rows = await connection.execute(select(engines).order_by(engines.c.url))
        views = tuple(_engine_view(row._asdict()) for row in engine_rows)
        return RoutingTable(
            aliases={row.name: Alias(**row._asdict()) for row in alias_rows},
            adapters={row.name: row.alias for row in adapter_rows},
            engines=views,
            base_models=frozenset(view.base_model for view in views if view.base_model),
        )


def _has_promoted(cycle: Cycle | None, alias: Alias) -> bool:
    """Whether a rollback returns to the previous adapter: a cycle may be found between its flip and its next state."""
    if cycle is None or cycle.state is CycleState.WATCHING:
        return True
    return cycle.state is CycleState.PROMOTING and cycle.candidate == alias.champion


def _engine_view(values: dict[str, Any]) -> EngineView:
    return EngineView(**values | {"resident": frozenset(values["resident"])})


async def _adapter(connection: AsyncConnection, name: str, *, lock: bool = False, keep: bool = False) -> Adapter:
    """`lock` it for its removal, or `keep` it from being removed, until the transaction ends."""
    query = select(adapters).where(adapters.c.name == name)
    if lock or keep:
        query = query.with_for_update(read=keep, key_share=keep)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound(f"There is no adapter {name!r}; `trimtab adapters` lists those there are.", param="adapter")
    return Adapter(**row._asdict())


async def _check_adapter(connection: AsyncConnection, name: str | None) -> None:
    if name is not None and name != BASE:
        await _adapter(connection, name, keep=True)


async def _why_locked(connection: AsyncConnection, name: str) -> str | None:
    """Why the adapter is locked out; None where it is not, and for the base. NotFound for what nobody registered."""
    return None if name == BASE else (await _adapter(connection, name, keep=True)).locked


async def _set_lock(connection: AsyncConnection, name: str, why: str | None) -> None:
    await connection.execute(update(adapters).where(adapters.c.name == name).values(locked=why))


async def _user(connection: AsyncConnection, adapter: str) -> str | None:
    """What needs the adapter, in words; None when nothing does."""
    using = select(aliases.c.name).where(
        or_(aliases.c.champion == adapter, aliases.c.previous == adapter, aliases.c.candidate == adapter)
    )
    if (alias := (await connection.execute(using.limit(1))).scalar_one_or_none()) is not None:
        return f"{alias!r} serves it, would return to it or has it in shadow"
    proving = select(cycles.c.id).where(cycles.c.candidate == adapter, cycles.c.closed_at.is_(None))
    if (cycle := (await connection.execute(proving.limit(1))).scalar_one_or_none()) is not None:
        return f"the open cycle {cycle!r} is proving it"
    return None
