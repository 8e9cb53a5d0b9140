"""The queue of retraining jobs: every write names the holder it is made for, and the row must still be his."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import and_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from service.core.errors import Conflict, NotFound, StaleWrite
from service.core.records import Job, JobPhase, JobStatus, Lease
from service.drivers.audit import record_event
from service.drivers.database import Database
from service.drivers.schema import cycles, jobs, record_values

_UNFINISHED = (JobStatus.QUEUED, JobStatus.RUNNING)


class SqlJobs:
    """`service.ports.Jobs` over SQL."""

    _db: Database

    async def enqueue(self, job: Job, *, fence: Lease | None = None) -> None:
        """The same id again is no change; NotFound for an unknown cycle."""
        async with self._db.write(fence) as connection:
            cycle = await connection.execute(select(cycles.c.id).where(cycles.c.id == job.cycle_id))
            if cycle.one_or_none() is None:
                raise NotFound(f"There is no cycle {job.cycle_id!r} for the job {job.id!r}; open the cycle first.")
            await self._db.add(connection, jobs, record_values(jobs, job))

    async def requeue(self, job: Job, *, reason: str, actor: str, now: float, fence: Lease | None = None) -> Job:
        as_seen = and_(jobs.c.id == job.id, jobs.c.status == job.status, jobs.c.updated_at == job.updated_at)
        waiting = {"queued_at": job.queued_at if job.status is JobStatus.QUEUED else now}
        freed = (
            update(jobs)
            .where(as_seen, jobs.c.status.in_(_UNFINISHED))
            .values(status=JobStatus.QUEUED, holder=None, heartbeat_at=None, updated_at=now, detail=waiting)
            .returning(jobs)
        )
        async with self._db.write(fence) as connection:
            row = (await connection.execute(freed)).one_or_none()
            if row is None:
                raise Conflict(f"The job {job.id!r} has been heard of again, so it is not started anew.")
            await record_event(
                connection, "job_relaunched", actor=actor, message=reason, now=now, alias=job.alias,
                cycle_id=job.cycle_id, evidence={"attempts": job.attempts, "was": job.status},
            )  # fmt: skip
            return Job(**row._asdict())

    async def job(self, job_id: str) -> Job:
        async with self._db.read() as connection:
            return await _job(connection, job_id)

    async def jobs(self, alias: str | None = None, *, limit: int = 20) -> Sequence[Job]:
        """Newest first."""
        query = select(jobs).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
        if alias is not None:
            query = query.where(jobs.c.alias == alias)
        async with self._db.read() as connection:
            return [Job(**row._asdict()) for row in await connection.execute(query)]

    async def claim(self, job_id: str, holder: str, *, now: float, stale_after_s: float) -> Job:
        free = or_(
            jobs.c.status == JobStatus.QUEUED,
            and_(jobs.c.status == JobStatus.RUNNING, jobs.c.heartbeat_at < now - stale_after_s),
        )
        taken = (
            update(jobs)
            .where(jobs.c.id == job_id, free)
            .values(
                status=JobStatus.RUNNING, holder=holder, heartbeat_at=now, updated_at=now,
                attempts=jobs.c.attempts + 1, phase=None, progress=0.0, detail={}, error=None,
            )
            .returning(jobs)
        )  # fmt: skip
        async with self._db.write() as connection:
            row = (await connection.execute(taken)).one_or_none()
            if row is not None:
                return Job(**row._asdict())
            job = await _job(connection, job_id)
            raise Conflict(f"The job {job_id!r} cannot be taken: it is {job.status}, held by {job.holder!r}.")

    async def report(
        self, job_id: str, holder: str, *, phase: JobPhase, progress: float, detail: Mapping[str, Any], now: float
    ) -> None:
        """`detail` replaces the earlier one."""
        await self._held(
            job_id, holder, phase=phase, progress=progress, detail=detail, heartbeat_at=now, updated_at=now
        )

    async def finish(self, job_id: str, holder: str, *, result: Mapping[str, Any], now: float) -> None:
        await self._held(
            job_id, holder, status=JobStatus.SUCCEEDED, progress=1.0, result=result, heartbeat_at=now, updated_at=now
        )

    async def fail(self, job_id: str, holder: str | None, *, error: str, now: float) -> None:
        """With `holder` None, Conflict when the job has ended meanwhile."""
        await self._held(job_id, holder, status=JobStatus.FAILED, error=error, updated_at=now)

    async def cancel(self, job_id: str, *, now: float) -> None:
        """A job that has ended stays as it ended."""
        async with self._db.write() as connection:
            await _job(connection, job_id)
            await cancel_unfinished(connection, jobs.c.id == job_id, now=now)

    async def _held(self, job_id: str, holder: str | None, **values: Any) -> None:
        mine = jobs.c.status.in_(_UNFINISHED) if holder is None else _is_held_by(holder)
        async with self._db.write() as connection:
            done = await connection.execute(update(jobs).where(jobs.c.id == job_id, mine).values(**values))
            if done.rowcount:
                return
            job = await _job(connection, job_id)
            if holder is None:
                raise Conflict(f"The job {job_id!r} has ended already: it is {job.status}.")
            raise StaleWrite(
                f"{holder!r} no longer holds the job {job_id!r}, which is {job.status} and held by {job.holder!r}; "
                "stop working on it."
            )


def _is_held_by(holder: str) -> Any:
    return and_(jobs.c.status == JobStatus.RUNNING, jobs.c.holder == holder)


async def _job(connection: AsyncConnection, job_id: str) -> Job:
    row = (await connection.execute(select(jobs).where(jobs.c.id == job_id))).one_or_none()
    if row is None:
        raise NotFound(f"There is no job {job_id!r}.")
    return Job(**row._asdict())


async def cancel_unfinished(connection: AsyncConnection, which: Any, *, now: float) -> None:
    """Cancel the jobs of `which` that have not ended; their holders learn it at their next report."""
    ending = update(jobs).where(which, jobs.c.status.in_(_UNFINISHED))
    await connection.execute(ending.values(status=JobStatus.CANCELLED, updated_at=now))
