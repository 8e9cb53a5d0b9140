"""Processes for jobs: one a job, ready before the job where that was expected."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.control.launcher import SubprocessLauncher
from service.core.records import Job, JobStatus
from service.settings import Settings

SLEEPER = """#!/bin/sh
echo "$@" >> {told}
exec sleep 600
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What each process was started with, a line each; the processes sleep."""
    path = tmp_path / "told"
    python = tmp_path / "python"
    python.write_text(SLEEPER.format(told=path), "utf-8")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    return path


@pytest.fixture
async def launcher(tmp_path: Path) -> AsyncIterator[SubprocessLauncher]:
    made = SubprocessLauncher(Settings(state_dir=tmp_path), None)
    yield made
    await made.stop()


def job(attempts: int = 0) -> Job:
    return Job("c1-job", "c1", "support", JobStatus.QUEUED, 0.0, 0.0, attempts=attempts)


def read(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.exists() else []


async def lines(path: Path, count: int) -> list[str]:
    for _ in range(1000):
        if len(found := read(path)) >= count:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError(f"fewer than {count} processes: {read(path)}")


async def test_a_process_that_was_expected_does_the_job(launcher: SubprocessLauncher, told: Path) -> None:
    await launcher.expect("c1-job", "c1")
    assert await lines(told, 1) == ["-m retrain_jobs --job c1-job --cycle c1"]
    await launcher.launch(job())
    await asyncio.sleep(0.2)
    assert len(await lines(told, 1)) == 1
    await launcher.launch(job(attempts=1))
    assert (await lines(told, 2))[1] == "-m retrain_jobs --job c1-job"


async def test_a_job_whose_process_has_gone_gets_another(launcher: SubprocessLauncher, told: Path) -> None:
    await launcher.expect("c1-job", "c1")
    await lines(told, 1)
    await launcher.stop()
    await launcher.launch(job())
    assert (await lines(told, 2))[1] == "-m retrain_jobs --job c1-job"


async def test_several_processes_are_not_started_ahead(tmp_path: Path, told: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    together = settings.model_copy(update={"retrain": settings.retrain.model_copy(update={"processes": 2})})
    await SubprocessLauncher(together, None).expect("c1-job", "c1")
    await asyncio.sleep(0.2)
    assert read(told) == []
