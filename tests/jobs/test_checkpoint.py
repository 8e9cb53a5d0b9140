"""A training that was killed goes on where it stood and ends as if nobody had touched it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from retrain_jobs.job import run_job
from retrain_jobs.unfinished import checkpoint_path, clear_checkpoints
from service.core.records import JobStatus
from service.drivers.blobs import open_blobs
from service.drivers.failpoints import ENV, Failpoint
from service.drivers.store import SqlStore
from service.settings import Settings
from tests.jobs.queue import enqueue, traffic

torch = pytest.importorskip("torch")

from retrain_jobs.recipes.checkpoint import Checkpoint  # noqa: E402

PARTS = {"model", "state_dir", "store", "blobs", "retrain", "engine", "aliases"}


def train(config: Path, failpoint: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "retrain_jobs", "--job", "j1", "--config", str(config)]
    return subprocess.run(command, env={**os.environ, ENV: failpoint}, capture_output=True, text=True, check=False)


@pytest.mark.long
async def test_killed_in_mid_training_it_ends_with_the_same_adapter(
    store: SqlStore, settings: Settings, tiny_base: Path, tmp_path: Path, scale: Callable[[int, int], int]
) -> None:
    knobs = settings.retrain.model_copy(
        update={"epochs": 1.0, "max_seconds": 600.0, "checkpoint_s": 0.001, "stale_after_s": 0.1, "max_attempts": 99}
    )
    settings = settings.model_copy(update={"model": str(tiny_base), "retrain": knobs})
    config = tmp_path / "trimtab.yaml"
    config.write_text(settings.model_dump_json(include=PARTS))
    await enqueue(store, traffic())
    job = await store.job("j1")

    # Reports 1 and 2 come before the first step, and every step makes one.
    for number in range(scale(1, 12)):
        done = train(config, f"{Failpoint.JOB_REPORTED}:{6 + number % 3}:{tmp_path / f'mark{number}'}")
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert checkpoint_path(settings, "j1").is_file()
    done = train(config)
    assert done.returncode == 0, done.stderr
    result = (await store.job("j1")).result
    assert "training goes on at step" in done.stderr
    assert not list(checkpoint_path(settings, "j1").parent.iterdir())

    await store.enqueue(replace(job, id="j2"))
    blobs = open_blobs(settings.blobs_url, settings.state_dir / "cache")
    await run_job(store, blobs, settings, "j2", "me", threads=1)
    whole = (await store.job("j2")).result
    assert result["digest"] == whole["digest"]
    assert result["training"]["train_loss"] == whole["training"]["train_loss"]
    assert result["evaluation"] == whole["evaluation"]


async def test_checkpoints_of_jobs_that_are_over_go(store: SqlStore, settings: Settings) -> None:
    await enqueue(store, traffic())
    live, unknown = checkpoint_path(settings, "j1"), checkpoint_path(settings, "j0")
    live.parent.mkdir()
    for path in (live, unknown, unknown.with_suffix(".12.draft")):
        path.touch()
    await clear_checkpoints(store, settings)
    assert list(live.parent.iterdir()) == [live]
    await store.cancel("j1", now=1e10)
    assert (await store.job("j1")).status is JobStatus.CANCELLED
    await clear_checkpoints(store, settings)
    assert list(live.parent.iterdir()) == []


def test_only_its_own_whole_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "j1.pt"
    moments = iter([0.0, 1.0, 20.0, 21.0, 22.0])
    checkpoint = Checkpoint(path, "key", 15.0, lambda: next(moments))
    assert checkpoint.read() is None
    checkpoint.keep(lambda: {"step": 1})
    assert not path.exists(), "it is not time yet"
    checkpoint.keep(lambda: {"step": 2, "weights": torch.ones(2)})
    state = checkpoint.read()
    assert state is not None
    assert (state["step"], state["weights"].tolist()) == (2, [1.0, 1.0])
    assert [file.name for file in path.parent.iterdir()] == ["j1.pt"]
    assert Checkpoint(path, "other", 15.0).read() is None
    path.write_bytes(path.read_bytes()[:-40])
    assert Checkpoint(path, "key", 15.0).read() is None
    path.write_bytes(b"")
    assert Checkpoint(path, "key", 15.0).read() is None
