"""Too little memory or disk is said in one line, before training where it can be known, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrain_jobs import limits
from retrain_jobs.job import run_job
from retrain_jobs.limits import MIB, Need, estimate, one_line, ran_out, require_room
from service.core.errors import Conflict
from service.core.records import JobStatus
from service.drivers.blobs import open_blobs
from service.drivers.store import SqlStore
from service.settings import Settings
from tests.jobs.queue import enqueue, traffic

torch = pytest.importorskip("torch")

from retrain_jobs.recipes.checkpoint import Checkpoint  # noqa: E402


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def failed(store: SqlStore, settings: Settings) -> str:
    with pytest.raises(Conflict):
        await run_job(store, open_blobs(settings.blobs_url, settings.state_dir / "c"), settings, "j1", "me", threads=1)
    job = await store.job("j1")
    assert job.status is JobStatus.FAILED
    assert await store.adapters() == []
    assert not (settings.state_dir / "adapters").exists()
    return str(job.error)


async def test_a_disk_that_is_too_small_ends_the_job_before_training(
    store: SqlStore, settings: Settings, tiny_base: Path, small_disk: Path
) -> None:
    settings.scratch_dir.symlink_to(small_disk)
    await enqueue(store, traffic())
    told = await failed(store, settings.model_copy(update={"model": str(tiny_base)}))
    assert "MiB on the disk of" in told
    assert "MiB are free" in told
    assert os.listdir(small_disk) == []


async def test_too_little_memory_ends_the_job_before_training(
    store: SqlStore, settings: Settings, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "free_memory", lambda: MIB)
    await enqueue(store, traffic())
    told = await failed(store, settings.model_copy(update={"model": str(tiny_base)}))
    assert "MiB of memory and 1 MiB are free; lower max_tokens" in told


def test_a_full_disk_leaves_the_checkpoint_that_was_there(small_disk: Path) -> None:
    checkpoint = Checkpoint(small_disk / "j1.pt", "key", 0.0)
    checkpoint.keep(lambda: {"weights": torch.zeros(1000)})
    with pytest.raises(OSError, match="No space left") as caught:
        checkpoint.keep(lambda: {"weights": torch.zeros(100_000)})
    assert "The disk is full" in one_line(caught.value)
    assert [path.name for path in small_disk.iterdir()] == ["j1.pt"]
    state = checkpoint.read()
    assert state is not None
    assert len(state["weights"]) == 1000


def test_what_ran_out_is_told_and_nothing_else_is_taken_for_it() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 46)
    assert "ran out of memory" in one_line(caught.value)
    assert ran_out(MemoryError()) is not None
    assert ran_out(ValueError("no")) is None
    assert one_line(ValueError("no")).startswith("ValueError: no")


def test_what_fits_passes(tmp_path: Path) -> None:
    require_room(Need(MIB, MIB), tmp_path, free=2 * MIB)
    with pytest.raises(Conflict, match="MiB of memory"):
        require_room(Need(MIB, 0), tmp_path, free=MIB)


def test_the_estimate_grows_with_what_is_computed_at_once() -> None:
    shape = {"layers": 4, "hidden": 256, "intermediate": 768, "heads": 4, "vocabulary": 2048, "width": 2}
    one = estimate(tokens=1000, longest=50, targets=50, trainable=10_000, **shape)
    assert estimate(tokens=2000, longest=50, targets=50, trainable=10_000, **shape).memory > one.memory
    assert estimate(tokens=1000, longest=50, targets=50, trainable=20_000, **shape).disk == 2 * one.disk
