"""A process that is ready before its job is queued: while a cycle waits for labels, what training needs is imported."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from importlib import import_module
from typing import Protocol

from retrain_jobs.lease import JobStopped
from service.core.errors import NotFound, Unavailable
from service.ports import Cycles, Jobs

WAITS_S = 600.0
"""Being ready takes half a gigabyte: where labels take longer, the process goes, and another is started in time."""

LOOKS_EVERY_S = 0.5
NEEDED = ("sklearn.feature_extraction.text", "sklearn.cluster", "scipy.sparse", "retrain_jobs.candidate")
"""What a job imports as it goes; seconds of a processor, and more beside a busy server."""


class Sources(Cycles, Jobs, Protocol):
    """What tells whether there is a job."""


async def until_queued(store: Sources, job_id: str, cycle_id: str) -> None:
    """Get ready, and return once the job is in the store.

    Raises JobStopped where its cycle ends before that, or waits for too long.
    """
    for name in NEEDED:
        await asyncio.to_thread(import_module, name)
    until = time.monotonic() + WAITS_S
    while not await _is_there(store, job_id, cycle_id):
        if time.monotonic() > until:
            raise JobStopped(f"No job {job_id} came within {WAITS_S:.0f} s; another process will do it.")
        await asyncio.sleep(LOOKS_EVERY_S)


async def _is_there(store: Sources, job_id: str, cycle_id: str) -> bool:
    with suppress(Unavailable):  # a store that is away is asked again
        try:
            await store.job(job_id)
        except NotFound:
            if not (await store.cycle(cycle_id)).is_open:
                raise JobStopped(f"Cycle {cycle_id} ended before there was a job.") from None
        else:
            return True
    return False
