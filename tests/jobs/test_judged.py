"""Evaluation in PyTorch and through the engines at the same time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from retrain_jobs import job
from retrain_jobs.dataset import Dataset
from retrain_jobs.lease import JobStopped, Lease
from retrain_jobs.served import Asked, Expected, Heard, Question
from retrain_jobs.work import Judged, Made, Report
from service.core.records import Job, JobPhase, JobStatus
from service.settings import Settings

ADAPTER = "support@222222222222"
QUESTION, EXPECTED = Question([{"role": "user", "content": "hi"}], "yes", 9), Expected("yes", 1.0)
WAIT_S = 5.0


class Jobs:
    """A store that remembers the details that it was told."""

    def __init__(self) -> None:
        self.details: list[Mapping[str, Any]] = []

    async def report(self, job_id: str, holder: str, *, detail: Mapping[str, Any], **_: Any) -> None:
        self.details.append(detail)


@pytest.fixture
def lease() -> Lease:
    return Lease(Job("j", "c", "support", JobStatus.RUNNING, 0.0, 0.0), "me")


async def judged(
    lease: Lease, judge: Callable[[Report], Judged], jobs: Jobs, questions: tuple[Question, ...] = (QUESTION,)
) -> tuple[Judged, dict[str, Any]]:
    made = Made(Path("adapter"), Dataset((), (), 0, {}, {}), {}, {}, judge, questions)
    spec = job.Spec("support", "base", 0.0, 0.0, None)
    return await job._judged(jobs, Settings(), lease, ADAPTER, spec, made, lambda: 0.0)  # type: ignore[arg-type]


async def test_the_engines_are_asked_while_pytorch_evaluates(lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, jobs = threading.Event(), Jobs()

    async def ask(*_: Any, **__: Any) -> Asked:
        asked.set()
        return Asked(1, [(Heard("yes", 0.1), Heard("no", 0.1))])

    def judge(report: Report) -> Judged:
        assert asked.wait(WAIT_S)
        report(JobPhase.EVALUATING, 0.5)
        return Judged({"golden": {}}, 1.0, [EXPECTED])

    monkeypatch.setattr(job, "ask_served", ask)
    found, served = await judged(lease, judge, jobs)
    await lease.send(jobs, now=0.0)  # type: ignore[arg-type]
    assert found.evaluation == {"golden": {}}
    assert served["served"]["agrees"]
    assert [told["adapter"] for told in jobs.details] == [ADAPTER, ADAPTER]


async def test_an_evaluation_that_fails_asks_no_further(lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = asyncio.Event()

    async def ask(*_: Any, **__: Any) -> Asked:
        try:
            await asyncio.sleep(WAIT_S)
        finally:
            ended.set()
        raise AssertionError("it was not stopped")

    def judge(report: Report) -> Judged:
        raise MemoryError

    monkeypatch.setattr(job, "ask_served", ask)
    with pytest.raises(MemoryError):
        await judged(lease, judge, Jobs())
    await asyncio.wait_for(ended.wait(), WAIT_S / 2)


async def test_who_has_lost_the_job_waits_for_no_engine(lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(*_: Any, waiting: Callable[[], None], **__: Any) -> Asked:
        while True:
            waiting()
            await asyncio.sleep(0.01)

    def judge(report: Report) -> Judged:
        lease.stop("taken over")
        return Judged({}, 1.0, [EXPECTED])

    monkeypatch.setattr(job, "ask_served", ask)
    with pytest.raises(JobStopped, match="taken over"):
        await judged(lease, judge, Jobs())


async def test_without_questions_no_engine_is_asked_nor_the_adapter_loaded(
    lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Jobs()
    monkeypatch.delattr(job, "ask_served")
    _, served = await judged(lease, lambda report: Judged({}, 1.0), jobs, ())
    await lease.send(jobs, now=0.0)  # type: ignore[arg-type]
    assert served == {}
    assert jobs.details == [{}]
