"""The right to work on a job: claimed once, kept by heartbeats, and everything stops when it is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from service.core.errors import Conflict, NotFound, TrimtabError, Unavailable
from service.core.records import Job, JobPhase
from service.ports import Jobs


class JobStopped(TrimtabError):
    """The job was cancelled, or another process holds it now: stop, and write nothing more."""

    code = "job_stopped"


@dataclass(slots=True)
class Lease:
    """What the working thread tells and is told. `report` may be called from any thread."""

    job: Job
    holder: str
    _phase: JobPhase = JobPhase.DATASET
    _progress: float = 0.0
    _detail: Mapping[str, Any] = field(default_factory=dict)
    _stopped: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def report(self, phase: JobPhase, progress: float, **detail: Any) -> None:
        """Say where the job stands (0..1 within all its phases); raises JobStopped once the lease is lost."""
        self.require()
        with self._lock:
            self._phase, self._progress, self._detail = phase, min(1.0, max(0.0, progress)), detail

    def require(self) -> None:
        """Raise JobStopped once the lease is lost."""
        with self._lock:
            if self._stopped is not None:
                raise JobStopped(self._stopped)

    def stop(self, why: str) -> None:
        """Make every later `report` raise."""
        with self._lock:
            self._stopped = self._stopped or why

    async def send(self, jobs: Jobs, *, now: float) -> None:
        """Write the latest report; raises JobStopped when the store says that the lease is lost."""
        with self._lock:
            phase, progress, detail = self._phase, self._progress, dict(self._detail)
        try:
            await jobs.report(self.job.id, self.holder, phase=phase, progress=progress, detail=detail, now=now)
        except (Conflict, NotFound) as error:
            self.stop(f"Job {self.job.id} was cancelled or taken over: {error.message}")
        self.require()


@asynccontextmanager
async def hold(
    jobs: Jobs, job_id: str, holder: str, *, heartbeat_s: float, stale_after_s: float, clock: Callable[[], float]
) -> AsyncIterator[Lease]:
    """Claim the job and keep it while the block runs. Raises Conflict when it is not to be had.

    A store that is away is waited for; after `stale_after_s` without a heartbeat another process may hold the job,
    so this one stops.
    """
    job = await jobs.claim(job_id, holder, now=clock(), stale_after_s=stale_after_s)
    lease = Lease(job, holder)
    beating = asyncio.create_task(_beat(jobs, lease, heartbeat_s, stale_after_s, clock))
    try:
        yield lease
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


async def _beat(jobs: Jobs, lease: Lease, heartbeat_s: float, stale_after_s: float, clock: Callable[[], float]) -> None:
    last = clock()
    while True:
        await asyncio.sleep(heartbeat_s)
        try:
            await lease.send(jobs, now=clock())
            last = clock()
        except JobStopped:
            return
        except Unavailable as error:
            if clock() - last > stale_after_s:
                lease.stop(
                    f"Job {lease.job.id} could not be kept: no heartbeat for {stale_after_s:.0f} s ({error.message})"
                )
                return
