"""Jobs: only the holder reports, and a holder who went silent loses the job."""

from __future__ import annotations

import asyncio

import pytest

from service.core.cycle import Trigger
from service.core.errors import BadRequest, Conflict, NotFound, StaleWrite
from service.core.records import Job, JobPhase, JobStatus
from service.drivers.store import SqlStore


def job(job_id: str = "j1", created_at: float = 10.0) -> Job:
    return Job(job_id, "c1", "support", JobStatus.QUEUED, created_at, created_at, spec={"recipe": "sft_lora"})


async def queued(store: SqlStore) -> None:
    await store.add_alias("support", now=1.0)
    await store.open_cycle("c1", "support", Trigger.DRIFT, reason="x", evidence={}, now=2.0, actor="me")
    await store.enqueue(job())


async def test_a_job_is_queued_once(store: SqlStore) -> None:
    await queued(store)
    await store.enqueue(job(created_at=99.0))
    assert await store.job("j1") == job()
    await store.enqueue(job("j2", 11.0))
    assert [one.id for one in await store.jobs("support")] == ["j2", "j1"]
    assert [one.id for one in await store.jobs(limit=1)] == ["j2"]
    assert await store.jobs("other") == []
    with pytest.raises(NotFound):
        await store.job("none")
    with pytest.raises(NotFound, match="no cycle"):
        await store.enqueue(Job("j3", "none", "support", JobStatus.QUEUED, 1.0, 1.0))


async def test_of_many_claims_one_wins(open_one) -> None:  # type: ignore[no-untyped-def]
    stores = [await open_one() for _ in range(4)]
    await queued(stores[0])
    found = await asyncio.gather(
        *(store.claim("j1", f"w{i}", now=11.0, stale_after_s=30.0) for i, store in enumerate(stores)),
        return_exceptions=True,
    )
    won = [one for one in found if isinstance(one, Job)]
    assert len(won) == 1
    assert won[0] == await stores[0].job("j1")
    assert (won[0].status, won[0].attempts, won[0].heartbeat_at) == (JobStatus.RUNNING, 1, 11.0)
    assert sum(isinstance(one, Conflict) for one in found) == 3


async def test_progress_and_the_end(store: SqlStore) -> None:
    await queued(store)
    await store.claim("j1", "w", now=11.0, stale_after_s=30.0)
    await store.report("j1", "w", phase=JobPhase.TRAINING, progress=0.5, detail={"loss": 1.2}, now=12.0)
    running = await store.job("j1")
    assert (running.phase, running.progress, running.detail) == (JobPhase.TRAINING, 0.5, {"loss": 1.2})
    assert (running.heartbeat_at, running.updated_at) == (12.0, 12.0)
    with pytest.raises(BadRequest):
        await store.report("j1", "w", phase=JobPhase.TRAINING, progress=1.5, detail={}, now=13.0)
    await store.finish("j1", "w", result={"adapter": "support@x"}, now=14.0)
    done = await store.job("j1")
    assert (done.status, done.progress, done.result) == (JobStatus.SUCCEEDED, 1.0, {"adapter": "support@x"})
    with pytest.raises(Conflict, match="ended already"):
        await store.fail("j1", None, error="gone", now=15.0)
    await store.cancel("j1", now=16.0)
    assert await store.job("j1") == done


async def test_a_silent_holder_is_taken_over_and_may_not_write_any_more(store: SqlStore) -> None:
    await queued(store)
    await store.claim("j1", "old", now=11.0, stale_after_s=30.0)
    with pytest.raises(Conflict, match="held by 'old'"):
        await store.claim("j1", "new", now=41.0, stale_after_s=30.0)
    taken = await store.claim("j1", "new", now=41.1, stale_after_s=30.0)
    assert (taken.holder, taken.attempts, taken.progress, taken.phase) == ("new", 2, 0.0, None)
    with pytest.raises(StaleWrite):
        await store.report("j1", "old", phase=JobPhase.TRAINING, progress=0.1, detail={}, now=42.0)
    with pytest.raises(StaleWrite):
        await store.finish("j1", "old", result={}, now=42.0)
    with pytest.raises(StaleWrite):
        await store.fail("j1", "old", error="x", now=42.0)
    assert await store.job("j1") == taken


async def test_a_cancelled_job_stops_its_holder(store: SqlStore) -> None:
    await queued(store)
    await store.claim("j1", "w", now=11.0, stale_after_s=30.0)
    await store.cancel("j1", now=12.0)
    with pytest.raises(StaleWrite, match="cancelled"):
        await store.report("j1", "w", phase=JobPhase.TRAINING, progress=0.1, detail={}, now=13.0)
    with pytest.raises(Conflict):
        await store.claim("j1", "w", now=99.0, stale_after_s=30.0)
    with pytest.raises(NotFound):
        await store.cancel("none", now=1.0)


async def test_a_job_fails_by_its_holder_or_by_the_controller(store: SqlStore) -> None:
    await queued(store)
    await store.claim("j1", "w", now=11.0, stale_after_s=30.0)
    await store.fail("j1", "w", error="no rows", now=12.0)
    assert ((await store.job("j1")).status, (await store.job("j1")).error) == (JobStatus.FAILED, "no rows")
    await store.enqueue(job("j2"))
    await store.fail("j2", None, error="the process is gone", now=13.0)
    assert (await store.job("j2")).status is JobStatus.FAILED


async def test_a_job_whose_process_is_gone_is_queued_again_once(store: SqlStore) -> None:
    await queued(store)
    seen = await store.claim("j1", "old", now=11.0, stale_after_s=30.0)
    freed = await store.requeue(seen, reason="silent", actor="controller", now=50.0)
    assert (freed.status, freed.holder, freed.attempts, freed.updated_at) == (JobStatus.QUEUED, None, 1, 50.0)
    with pytest.raises(Conflict, match="heard of again"):
        await store.requeue(seen, reason="silent", actor="controller", now=51.0)
    with pytest.raises(StaleWrite):
        await store.report("j1", "old", phase=JobPhase.TRAINING, progress=0.1, detail={}, now=52.0)
    assert (await store.claim("j1", "new", now=52.0, stale_after_s=30.0)).attempts == 2
    assert [event.kind for event in await store.events(kinds=["job_relaunched"])] == ["job_relaunched"]
