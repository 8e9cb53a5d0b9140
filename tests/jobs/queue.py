"""A job in a real store, with the traffic that it is about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from service.core.cycle import Trigger
from service.core.records import Job, JobStatus, Labelled
from service.drivers.store import SqlStore
from tests.jobs.rows import ONSET, desk

OLD, NEW = ("refund", "invoice"), ("travel", "luggage")


def traffic() -> list[Labelled]:
    """Forty labelled requests of each old kind before the onset and of each new kind after it."""
    return [*desk(OLD, 40, start=ONSET - 500), *desk(NEW, 40, start=ONSET + 1)]


async def opened(store: SqlStore) -> None:
    """An alias, and its cycle c1."""
    await store.add_alias("support", now=0.0)
    await store.open_cycle("c1", "support", Trigger.PERSON, reason="test", evidence={}, now=ONSET + 500, actor="test")


async def enqueue(store: SqlStore, rows: list[Labelled], job_id: str = "j1", champion: str = "base") -> Job:
    """A queued job over `rows`, with the alias and the cycle that it belongs to."""
    await opened(store)
    return await queue(store, rows, job_id, champion)


async def queue(store: SqlStore, rows: list[Labelled], job_id: str = "j1", champion: str = "base") -> Job:
    """A queued job over `rows` in the cycle that is open."""
    await store.add_captures([row.capture for row in rows])
    await store.add_feedback([row.feedback for row in rows if row.feedback])
    job = Job(
        id=job_id, cycle_id="c1", alias="support", status=JobStatus.QUEUED, created_at=ONSET + 500,
        updated_at=ONSET + 500,
        spec={
            "alias": "support", "champion": champion, "drift_check": None, "window_since": 0.0, "onset": ONSET,
            "until": ONSET + 500,
        },
    )  # fmt: skip
    await store.enqueue(job)
    return job


async def wait_for(store: SqlStore, reached: Callable[[Job], bool], job_id: str = "j1") -> Job:
    """The job, once it is as `reached` says; a job that has ended otherwise is an error."""
    async with asyncio.timeout(120.0):
        while True:
            job = await store.job(job_id)
            if reached(job):
                return job
            assert job.status in {JobStatus.QUEUED, JobStatus.RUNNING}, job.error
            await asyncio.sleep(0.02)
