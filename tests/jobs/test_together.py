"""Several processes train as one would, and none is left waiting when another is gone."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from retrain_jobs.processes import Place
from service.core.errors import ConfigError
from service.core.records import JobStatus
from service.drivers.store import SqlStore
from service.settings import Recipe, Settings
from tests.jobs.forked import FAILS, Forked
from tests.jobs.queue import enqueue, traffic, wait_for
from tests.jobs.test_preference_training import corrected

PARTS = {"model", "state_dir", "store", "blobs", "retrain", "engine", "aliases"}


def written(settings: Settings, tiny_base: Path, path: Path, **knobs: Any) -> Path:
    """A configuration file to train the tiny model by."""
    changed = settings.model_copy(
        update={"model": str(tiny_base), "retrain": settings.retrain.model_copy(update={"max_seconds": 600.0, **knobs})}
    )
    path.write_text(changed.model_dump_json(include=PARTS))
    return path


@contextmanager
def launched(configs: list[Path], job_id: str = "j1", fails: int | None = None) -> Iterator[list[Forked]]:
    """A process for each configuration, with the environment that a launcher gives them; `fails` has no memory."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(len(configs)), "LOCAL_WORLD_SIZE": str(len(configs)), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), FAILS: str(fails),
    }  # fmt: skip
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                Forked(
                    ["--job", job_id, "--config", str(config)],
                    {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                )
            )
            for rank, config in enumerate(configs)
        ]


def started(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", *command], stderr=subprocess.PIPE, text=True)


async def ended(process: subprocess.Popen[str] | Forked) -> tuple[int, str]:
    """The exit code and standard error of a process that must end by itself."""
    _, told = await asyncio.to_thread(process.communicate, timeout=90)
    return process.returncode, told


@pytest.mark.parametrize("recipe", ["sft_lora", "dpo_lora"])
async def test_two_processes_give_the_loss_curve_of_one(
    store: SqlStore, settings: Settings, tiny_base: Path, tmp_path: Path, recipe: str
) -> None:
    job = await enqueue(store, traffic() if recipe == "sft_lora" else corrected(traffic()))
    await store.enqueue(replace(job, id="j2"))
    # A batch of 15 that two cannot share evenly, and parts of it that must be added up.
    config = written(settings, tiny_base, tmp_path / "one.yaml", recipe=Recipe(recipe), epochs=2.0, batch_size=15)
    results = []
    for job_id, size in (("j1", 1), ("j2", 2)):
        with launched([config] * size, job_id) as processes:
            for code, told in await asyncio.gather(*map(ended, processes)):
                assert code == 0, told
        results.append((await store.job(job_id)).result)
    one, two = (result["training"] for result in results)
    for name in ("train_loss", "heldout_loss"):
        assert len(one[name]) == len(two[name]) > 1
        for (step, loss), (same_step, same_loss) in zip(one[name], two[name], strict=True):
            assert step == same_step
            assert same_loss == pytest.approx(loss, rel=0, abs=2e-4)
    assert one["heldout_exact"] == two["heldout_exact"]
    assert [result["manifest"]["processes"] for result in results] == [1, 2]


async def test_the_setting_starts_the_others_and_a_cancelled_job_ends_them(
    store: SqlStore, settings: Settings, tiny_base: Path, tmp_path: Path
) -> None:
    await enqueue(store, traffic())
    config = written(settings, tiny_base, tmp_path / "t.yaml", processes=2, epochs=1e5, patience=10**6)
    with started("retrain_jobs", "--job", "j1", "--config", str(config)) as leader:
        try:
            await wait_for(store, lambda job: "step" in job.detail)
            others = psutil.Process(leader.pid).children()
            assert len(others) == 1
            await store.cancel("j1", now=1e10)
            code, told = await ended(leader)
        finally:
            leader.kill()
    assert code == 3, told
    assert not any(other.is_running() for other in others)
    assert (await store.job("j1")).status is JobStatus.CANCELLED


@pytest.mark.parametrize(
    "launcher",
    [
        ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
        # Without --multi_gpu it would start one process; each takes the CPU where there is no GPU.
        ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
         "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"],
    ],
    ids=["torchrun", "accelerate"],
)  # fmt: skip
async def test_a_launcher_starts_the_same_command(
    store: SqlStore, settings: Settings, tiny_base: Path, tmp_path: Path, launcher: list[str]
) -> None:
    await enqueue(store, traffic())
    config = written(settings, tiny_base, tmp_path / "trimtab.yaml", epochs=1.0)
    with started(*launcher, "-m", "retrain_jobs", "--job", "j1", "--config", str(config)) as process:
        try:
            code, told = await ended(process)
        finally:
            process.kill()
    assert code == 0, told
    assert (await store.job("j1")).result["manifest"]["processes"] == 2


@pytest.mark.parametrize("gone", [0, 1])
async def test_who_is_killed_ends_the_others_with_a_reason(
    store: SqlStore, settings: Settings, tiny_base: Path, tmp_path: Path, gone: int
) -> None:
    await enqueue(store, traffic())
    config = written(settings, tiny_base, tmp_path / "trimtab.yaml", epochs=1e5, patience=10**6)
    with launched([config] * 3) as processes:
        await wait_for(store, lambda job: "step" in job.detail)
        processes[gone].kill()
        left = [process for rank, process in enumerate(processes) if rank != gone]
        for code, told in await asyncio.gather(*map(ended, left)):
            assert code == 1
            assert told.splitlines()[-1].startswith(("error: One of the processes", "error: The process that led"))
    job = await store.job("j1")
    if gone == 0:
        assert job.status is JobStatus.RUNNING, "another start goes on from its checkpoint"
    else:
        assert job.status is JobStatus.FAILED
        assert job.error is not None
        assert "One of the processes that train together is gone" in job.error
    assert await store.adapters() == []


async def test_a_process_that_cannot_do_its_part_is_named(
    store: SqlStore, settings: Settings, tiny_base: Path, tmp_path: Path
) -> None:
    await enqueue(store, traffic())
    good = written(settings, tiny_base, tmp_path / "good.yaml")
    bad = written(settings, tmp_path / "nothing", tmp_path / "bad.yaml")
    with launched([good, bad]) as processes:
        (code, told), (other_code, _) = await asyncio.gather(*map(ended, processes))
    assert (code, other_code) == (1, 0), "the leader failed, the other did as it was told"
    assert "Training process 1 of 2 failed: The base model" in told.splitlines()[-1]
    assert told.splitlines()[-1] == f"error: {(await store.job('j1')).error}"


@pytest.mark.parametrize("fails", [0, 1])
async def test_a_process_that_runs_out_of_memory_ends_the_job(
    store: SqlStore, settings: Settings, tiny_base: Path, tmp_path: Path, fails: int
) -> None:
    await enqueue(store, traffic())
    config = written(settings, tiny_base, tmp_path / "trimtab.yaml")
    with launched([config] * 2, fails=fails) as processes:
        (code, told), (other_code, _) = await asyncio.gather(*map(ended, processes))
    assert (code, other_code) == (1, 0)
    named = "Training process 1 of 2 failed: " if fails else ""
    assert f"error: {named}Training ran out of memory" in told.splitlines()[-1]
    assert told.splitlines()[-1] == f"error: {(await store.job('j1')).error}"


async def test_a_job_that_ends_before_it_trains_sends_the_others_home(
    store: SqlStore, settings: Settings, tiny_base: Path, tmp_path: Path
) -> None:
    await enqueue(store, traffic()[:3])
    config = written(settings, tiny_base, tmp_path / "trimtab.yaml")
    with launched([config] * 2) as processes:
        (code, told), (other_code, _) = await asyncio.gather(*map(ended, processes))
    assert (code, other_code) == (1, 0)
    assert "Too few examples" in told or "Nothing new" in told


@pytest.mark.parametrize(
    "env", [{"WORLD_SIZE": "two"}, {"WORLD_SIZE": "2", "RANK": "2"}, {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "3"}]
)
def test_a_launchers_numbers_must_make_sense(env: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        Place.of(env)


def test_alone_without_a_launcher() -> None:
    assert Place.of({}) == Place(rank=0, size=1, local=1)
