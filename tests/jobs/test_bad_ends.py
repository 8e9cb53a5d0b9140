"""What goes wrong in the middle of a job ends it with its reason, and no half adapter is left anywhere."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retrain_jobs.job import run_job
from service.core.errors import Conflict
from service.core.records import JobStatus, Labelled
from service.drivers.blobs import open_blobs
from service.drivers.store import SqlStore
from service.settings import BlobSettings, Settings
from tests.jobs.queue import enqueue, traffic
from tests.jobs.rows import ONSET
from tests.jobs.test_trust import honest, poisoned

pytest.importorskip("torch")

from retrain_jobs.recipes.checkpoint import Checkpoint
from retrain_jobs.recipes.objective import Likelihood


@pytest.fixture
def trained(settings: Settings, tiny_base: Path, tmp_path: Path) -> Settings:
    """A base model of its own, which may be spoiled, and a checkpoint after every step."""
    model = shutil.copytree(tiny_base, tmp_path / "base")
    knobs = settings.retrain.model_copy(update={"epochs": 2.0, "checkpoint_s": 0.001})
    return settings.model_copy(update={"model": str(model), "retrain": knobs})


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 KiB."""
    folder = tmp_path / "tiny-disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def run(store: SqlStore, settings: Settings, job_id: str = "j1") -> None:
    blobs = open_blobs(settings.blobs_url, settings.state_dir / "cache")
    await run_job(store, blobs, settings, job_id, "me", threads=1)


async def require_nothing_left(store: SqlStore, settings: Settings, told: str, job_id: str = "j1") -> None:
    """The job has failed with one line, and neither scratch, nor checkpoint, nor adapter is there."""
    job = await store.job(job_id)
    assert job.status is JobStatus.FAILED
    assert told in str(job.error)
    assert "\n" not in str(job.error)
    assert list(settings.scratch_dir.glob("*")) == []
    assert list((settings.state_dir / "checkpoints").glob("*")) == []
    adapters = await store.adapters()
    kept = {path.name for path in (settings.state_dir / "adapters").glob("*")}
    assert len(kept) == len(adapters) == (0 if job_id == "j1" else 1)


def after(calls: int, error: Exception, original: Callable[..., Any]) -> Callable[..., Any]:
    """`original`, which fails once it was called so often."""
    count = 0

    def called(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count > calls:
            raise error
        return original(*arguments, **named)

    return called


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
    ],
)
async def test_memory_that_runs_out_in_mid_training(
    store: SqlStore, trained: Settings, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(Likelihood, "loss", after(5, error, Likelihood.loss))
    await enqueue(store, traffic())
    with pytest.raises(type(error)):
        await run(store, trained)
    await require_nothing_left(store, trained, "ran out of memory")


async def test_a_disk_that_is_full_at_a_checkpoint(
    store: SqlStore, trained: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(Checkpoint, "keep", after(3, full, Checkpoint.keep))
    await enqueue(store, traffic())
    with pytest.raises(OSError, match="No space left"):
        await run(store, trained)
    await require_nothing_left(store, trained, "The disk is full")


async def test_a_disk_that_is_full_where_the_adapter_is_to_go(
    store: SqlStore, trained: Settings, tiny_disk: Path
) -> None:
    await enqueue(store, traffic())
    with pytest.raises(Exception, match="No space left"):
        await run(store, trained.model_copy(update={"blobs": BlobSettings(url=tiny_disk.as_uri())}))
    await require_nothing_left(store, trained, "No space left on device")
    assert [name for *_, files in os.walk(tiny_disk) for name in files] == []


def spoil(model: str) -> None:
    """Another base model from now on."""
    path = Path(model) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "rope_theta": 12345.0}), "utf-8")


async def test_a_base_model_that_changes_while_the_job_runs(
    store: SqlStore, trained: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(checkpoint: Checkpoint, state: Any, *, last: bool = False) -> None:
        if last:
            spoil(trained.model)

    monkeypatch.setattr(Checkpoint, "keep", changed)
    monkeypatch.setattr("retrain_jobs.candidate.base_digest", lambda model: "0" * 64)
    await enqueue(store, traffic())
    with pytest.raises(Conflict, match="not the one that this job began with"):
        await run(store, trained)
    await require_nothing_left(store, trained, "its digest is")


async def test_a_base_model_that_is_not_the_champions(store: SqlStore, trained: Settings) -> None:
    job = await enqueue(store, traffic())
    await run(store, trained)
    (champion,) = await store.adapters()
    await store.enqueue(replace(job, id="j2", spec={**job.spec, "champion": champion.name}))
    spoil(trained.model)
    with pytest.raises(Conflict, match="not the one that support@"):
        await run(store, trained, "j2")
    await require_nothing_left(store, trained, "roll the alias back", "j2")


async def test_a_poisoned_source_alone_is_nothing_to_learn_from(store: SqlStore, trained: Settings) -> None:
    """The rest is too little, and the reason says what was left out: of five honest rows two have one user, too."""
    await enqueue(store, [*honest(5), *poisoned(250)])
    with pytest.raises(Conflict, match="one_source 252"):
        await run(store, trained)
    await require_nothing_left(store, trained, "Too few examples")


@pytest.mark.parametrize("count", [1, 10, 250])
async def test_a_poisoned_source_among_five_thousand_rows_is_in_no_manifest(
    store: SqlStore, trained: Settings, count: int
) -> None:
    rows: list[Labelled] = [*honest(5000 - count), *poisoned(count)]
    knobs = trained.retrain.model_copy(
        update={"max_examples": 2600, "epochs": 0.1, "holdout_ratio": 0.02, "served_rows": 0}
    )
    await enqueue(store, rows)
    job = await store.job("j1")
    await store.enqueue(replace(job, id="j2", spec={**job.spec, "until": ONSET + 5000}))
    await run(store, trained.model_copy(update={"retrain": knobs}), "j2")
    result = (await store.job("j2")).result
    assert result["dataset"]["looked_at"] == 5000
    assert result["dataset"]["dropped"]["one_source"] == count
    kept = result["manifest"]["dataset"]
    assert len(kept["train"]) > 2000
    assert not [name for name in (*kept["train"], *kept["heldout"]) if name.startswith("p")]
