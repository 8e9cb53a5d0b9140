"""Cycles and drift checks. A cycle moves only from the state in which its writer last saw it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import exc, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from service.core.cycle import TERMINAL, CycleState, Trigger, check_transition
from service.core.errors import Conflict, NotFound
from service.core.records import Cycle, DriftCheck, DriftReference, Lease
from service.drivers.alias_rows import lock_alias, set_alias_health
from service.drivers.audit import record_event
from service.drivers.database import Database
from service.drivers.jobs import cancel_unfinished
from service.drivers.schema import aliases, cycles, drift_checks, drift_references, jobs, record_values


class SqlCycles:
    """`service.ports.Cycles` over SQL."""

    _db: Database

    async def open_cycle(
        self, cycle_id: str, alias: str, trigger: Trigger, *, reason: str, evidence: Mapping[str, Any], now: float,
        actor: str, fence: Lease | None = None,
    ) -> Cycle:  # fmt: skip
        cycle = Cycle(cycle_id, alias, CycleState.OPEN, trigger, reason, now, now, now, evidence=evidence)
        async with self._db.write(fence) as connection:
            known = await connection.execute(select(aliases.c.name).where(aliases.c.name == alias))
            if known.one_or_none() is None:
                raise NotFound(f"There is no alias {alias!r}; `trimtab aliases` lists those there are.", param="alias")
            try:
                await connection.execute(insert(cycles).values(record_values(cycles, cycle)))
            except exc.IntegrityError as error:
                raise Conflict(
                    f"{alias!r} has an open cycle already, or {cycle_id!r} is taken; let it end or roll it back first."
                ) from error
            await record_event(
                connection, "cycle.open", actor=actor, message=reason, now=now, alias=alias, cycle_id=cycle_id,
                evidence={"trigger": trigger, **evidence},
            )  # fmt: skip
            return cycle

    async def advance(
        self, cycle: Cycle, to: CycleState, *, reason: str, now: float, actor: str = "controller",
        evidence: Mapping[str, Any] | None = None, candidate: str | None = None, job_id: str | None = None,
        fence: Lease | None = None,
    ) -> Cycle:  # fmt: skip
        """A cycle that ends takes its unfinished jobs with it; one that ends badly counts as its alias's failure."""
        check_transition(cycle.state, to)
        ends_badly = to in TERMINAL and to is not CycleState.DONE
        async with self._db.write(fence) as connection:
            alias = await lock_alias(connection, cycle.alias) if ends_badly else None
            current = await _locked(connection, cycle.id)
            if current.state is not cycle.state:
                raise Conflict(
                    f"The cycle {cycle.id!r} is {current.state}, not {cycle.state} any more; read it and decide again."
                )
            moved = await move_cycle(
                connection, current, to, reason=reason, now=now, actor=actor, evidence=evidence or {},
                candidate=candidate, job_id=job_id,
            )  # fmt: skip
            if alias is not None:
                await set_alias_health(
                    connection, alias.name, failures=alias.failures + 1, latched=alias.latched, actor=actor, now=now
                )
            return moved

    async def note_evidence(
        self, cycle: Cycle, evidence: Mapping[str, Any], *, now: float, kind: str | None = None, message: str = "",
        actor: str = "controller", fence: Lease | None = None,
    ) -> Cycle:  # fmt: skip
        async with self._db.write(fence) as connection:
            current = await _locked(connection, cycle.id)
            if kind is not None:
                await record_event(
                    connection, kind, actor=actor, message=message, now=now, alias=cycle.alias, cycle_id=cycle.id,
                    evidence={},
                )  # fmt: skip
            return await _update(connection, cycle.id, evidence={**current.evidence, **evidence}, updated_at=now)

    async def cycle(self, cycle_id: str) -> Cycle:
        async with self._db.read() as connection:
            return _found(await connection.execute(select(cycles).where(cycles.c.id == cycle_id)), cycle_id)

    async def cycles(self, alias: str | None = None, *, open_only: bool = False, limit: int = 50) -> Sequence[Cycle]:
        query = select(cycles).order_by(cycles.c.opened_at.desc(), cycles.c.id.desc()).limit(limit)
        if alias is not None:
            query = query.where(cycles.c.alias == alias)
        if open_only:
            query = query.where(cycles.c.closed_at.is_(None))
        async with self._db.read() as connection:
            return [Cycle(**row._asdict()) for row in await connection.execute(query)]

    async def add_drift_check(self, check: DriftCheck) -> None:
        """The same id again is no change."""
        async with self._db.write() as connection:
            await self._db.add(connection, drift_checks, record_values(drift_checks, check))

    async def drift_checks(
        self, alias: str | None = None, *, limit: int = 50, slice: str | None = None, verdict: str | None = None
    ) -> Sequence[DriftCheck]:
        query = select(drift_checks).order_by(drift_checks.c.at.desc(), drift_checks.c.id.desc()).limit(limit)
        query = query.where(drift_checks.c.slice.is_(None) if slice is None else drift_checks.c.slice == slice)
        if alias is not None:
            query = query.where(drift_checks.c.alias == alias)
        if verdict is not None:
            query = query.where(drift_checks.c.verdict == verdict)
        async with self._db.read() as connection:
            return [DriftCheck(**row._asdict()) for row in await connection.execute(query)]

    async def add_drift_reference(self, reference: DriftReference) -> None:
        values = record_values(drift_references, reference)
        newer = {name: values[name] for name in ("made_at", "made_by")}
        adding = self._db.insert(drift_references).values(values)
        async with self._db.write() as connection:
            await connection.execute(adding.on_conflict_do_update(index_elements=["id"], set_=newer))

    async def drift_references(
        self, alias: str, *, limit: int = 50, slice: str | None = None
    ) -> Sequence[DriftReference]:
        of_slice = drift_references.c.slice.is_(None) if slice is None else drift_references.c.slice == slice
        query = (
            select(drift_references)
            .where(drift_references.c.alias == alias, of_slice)
            .order_by(drift_references.c.made_at.desc(), drift_references.c.id)
            .limit(limit)
        )
        async with self._db.read() as connection:
            return [DriftReference(**row._asdict()) for row in await connection.execute(query)]


async def open_cycle_of(connection: AsyncConnection, alias: str) -> Cycle | None:
    """The alias's open cycle, locked until the caller's transaction ends."""
    query = select(cycles).where(cycles.c.alias == alias, cycles.c.closed_at.is_(None)).with_for_update()
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else Cycle(**row._asdict())


async def move_cycle(
    connection: AsyncConnection, cycle: Cycle, to: CycleState, *, reason: str, now: float, actor: str,
    evidence: Mapping[str, Any], candidate: str | None = None, job_id: str | None = None,
) -> Cycle:  # fmt: skip
    """Move a locked cycle on, with its event; `evidence` is merged into the cycle's."""
    ended = to in TERMINAL
    named = {key: value for key, value in (("candidate", candidate), ("job_id", job_id)) if value is not None}
    moved = await _update(
        connection, cycle.id, state=to, updated_at=now, state_since=now, closed_at=now if ended else None,
        candidate=candidate or cycle.candidate, job_id=job_id or cycle.job_id,
        evidence={**cycle.evidence, **evidence},
    )  # fmt: skip
    if ended:
        await cancel_unfinished(connection, jobs.c.cycle_id == cycle.id, now=now)
    await record_event(
        connection, f"cycle.{to}", actor=actor, message=reason, now=now, alias=cycle.alias, cycle_id=cycle.id,
        evidence={"from": cycle.state, **named, **evidence},
    )  # fmt: skip
    return moved


async def _locked(connection: AsyncConnection, cycle_id: str) -> Cycle:
    return _found(await connection.execute(select(cycles).where(cycles.c.id == cycle_id).with_for_update()), cycle_id)


async def _update(connection: AsyncConnection, cycle_id: str, **values: Any) -> Cycle:
    changed = update(cycles).where(cycles.c.id == cycle_id).values(**values).returning(cycles)
    return Cycle(**(await connection.execute(changed)).one()._asdict())


def _found(result: Any, cycle_id: str) -> Cycle:
    row = result.one_or_none()
    if row is None:
        raise NotFound(f"There is no cycle {cycle_id!r}; `trimtab cycles` lists those there are.")
    return Cycle(**row._asdict())
