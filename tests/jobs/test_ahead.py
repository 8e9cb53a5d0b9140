"""A process that got ready while its cycle waited for labels."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from retrain_jobs import ahead
from retrain_jobs.lease import JobStopped
from service.core.cycle import CycleState
from service.core.errors import Unavailable
from service.core.records import Cycle, JobStatus
from service.drivers.store import SqlStore
from service.settings import Settings
from tests.jobs.queue import opened, queue, traffic
from tests.jobs.test_main import config_file


async def close(store: SqlStore) -> None:
    cycle = await store.cycle("c1")
    await store.advance(cycle, CycleState.FAILED, reason="test", now=2000.0)


@pytest.fixture
def nothing_to_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "NEEDED", ())


async def test_it_does_the_job_once_there_is_one(store: SqlStore, settings: Settings, tiny_base: Path) -> None:
    await opened(store)
    changed = settings.model_copy(update={"model": str(tiny_base)})
    changed = changed.model_copy(update={"retrain": settings.retrain.model_copy(update={"epochs": 1.0})})
    command = ["-m", "retrain_jobs", "--job", "j1", "--cycle", "c1", "--config", str(config_file(changed))]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stderr=asyncio.subprocess.PIPE)
    try:
        await asyncio.sleep(1.0)
        assert process.returncode is None
        await queue(store, traffic())
        _, told = await asyncio.wait_for(process.communicate(), 120.0)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, told
    assert (await store.job("j1")).status is JobStatus.SUCCEEDED


async def test_it_goes_with_its_cycle(store: SqlStore, nothing_to_import: None) -> None:
    await opened(store)
    waiting = asyncio.create_task(ahead.until_queued(store, "j1", "c1"))
    await asyncio.sleep(2 * ahead.LOOKS_EVERY_S)
    assert not waiting.done()
    await close(store)
    with pytest.raises(JobStopped, match="Cycle c1 ended before there was a job"):
        await asyncio.wait_for(waiting, 10.0)


async def test_a_store_that_is_away_is_asked_again(
    store: SqlStore, nothing_to_import: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opened(store)
    answers = iter([Unavailable("away"), None])

    async def cycle(cycle_id: str) -> Cycle:
        if (error := next(answers, None)) is not None:
            raise error
        return await SqlStore.cycle(store, cycle_id)

    monkeypatch.setattr(store, "cycle", cycle)
    waiting = asyncio.create_task(ahead.until_queued(store, "j1", "c1"))
    await asyncio.sleep(2 * ahead.LOOKS_EVERY_S)
    await queue(store, traffic())
    await asyncio.wait_for(waiting, 10.0)


async def test_it_does_not_hold_memory_for_ever(
    store: SqlStore, nothing_to_import: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opened(store)
    monkeypatch.setattr(ahead, "WAITS_S", 0.0)
    with pytest.raises(JobStopped, match="another process will do it"):
        await asyncio.wait_for(ahead.until_queued(store, "j1", "c1"), 10.0)


def test_what_it_imports_is_there() -> None:
    from importlib.util import find_spec

    assert all(find_spec(name) for name in ahead.NEEDED)
