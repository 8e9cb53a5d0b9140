"""Who may work on a job, and when he must stop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from retrain_jobs.lease import JobStopped, hold
from service.core.errors import Conflict, Unavailable
from service.core.records import JobPhase, JobStatus
from service.drivers.store import SqlStore
from tests.jobs.queue import enqueue, wait_for

BEAT_S, STALE_S = 0.01, 30.0


class Hands:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 2000.0

    def __call__(self) -> float:
        return self.now


async def test_progress_reaches_the_store_with_each_heartbeat(store: SqlStore) -> None:
    await enqueue(store, [])
    async with hold(store, "j1", "me", heartbeat_s=BEAT_S, stale_after_s=STALE_S, clock=Hands()) as lease:
        await asyncio.to_thread(lease.report, JobPhase.TRAINING, 0.4, loss=1.5)
        job = await wait_for(store, lambda job: job.phase is JobPhase.TRAINING)
    assert (job.status, job.holder, job.progress, job.detail) == (JobStatus.RUNNING, "me", 0.4, {"loss": 1.5})


async def test_a_held_job_is_not_to_be_had_until_its_heart_stops(store: SqlStore) -> None:
    await enqueue(store, [])
    clock = Hands()
    await store.claim("j1", "other", now=clock.now, stale_after_s=STALE_S)
    with pytest.raises(Conflict):
        async with hold(store, "j1", "me", heartbeat_s=BEAT_S, stale_after_s=STALE_S, clock=clock):
            pass
    clock.now += STALE_S + 1
    async with hold(store, "j1", "me", heartbeat_s=BEAT_S, stale_after_s=STALE_S, clock=clock) as lease:
        assert lease.job.attempts == 2


@pytest.mark.parametrize("how", ["cancelled", "taken over"])
async def test_a_lost_lease_stops_the_work(store: SqlStore, how: str) -> None:
    await enqueue(store, [])
    clock = Hands()
    async with hold(store, "j1", "me", heartbeat_s=BEAT_S, stale_after_s=STALE_S, clock=clock) as lease:
        if how == "cancelled":
            await store.cancel("j1", now=clock.now)
        else:
            await store.claim("j1", "other", now=clock.now + 2 * STALE_S, stale_after_s=STALE_S)

        def work() -> None:
            while True:
                lease.report(JobPhase.TRAINING, 0.5)

        with pytest.raises(JobStopped, match="cancelled or taken over"):
            await asyncio.wait_for(asyncio.to_thread(work), timeout=10.0)
        with pytest.raises(JobStopped):
            await lease.send(store, now=clock.now)


class Away:
    """A store that cannot be reached after the claim."""

    def __init__(self, store: SqlStore, clock: Hands) -> None:
        self._store = store
        self._clock = clock
        self.claim = store.claim
        self.asked = 0

    async def report(self, job_id: str, holder: str, *, phase: JobPhase, progress: float, detail: Mapping[str, Any],
                     now: float) -> None:  # fmt: skip
        self.asked += 1
        self._clock.now += STALE_S / 4
        raise Unavailable("The store is away.")


async def test_a_store_that_stays_away_ends_the_work_before_another_may_take_it(store: SqlStore) -> None:
    await enqueue(store, [])
    clock = Hands()
    away = Away(store, clock)
    async with hold(away, "j1", "me", heartbeat_s=BEAT_S, stale_after_s=STALE_S, clock=clock) as lease:  # type: ignore[arg-type]

        def work() -> None:
            while True:
                lease.report(JobPhase.TRAINING, 0.5)

        with pytest.raises(JobStopped, match="no heartbeat for 30 s"):
            await asyncio.wait_for(asyncio.to_thread(work), timeout=10.0)
    assert away.asked == 5
