"""Where the checkpoints of unfinished jobs lie: a job that is started again finds its own, those of the others go."""

from __future__ import annotations

from pathlib import Path

from service.core.errors import NotFound
from service.core.records import JobStatus
from service.ports import Store
from service.settings import Settings

_LIVE = frozenset({JobStatus.QUEUED, JobStatus.RUNNING})


def checkpoint_path(settings: Settings, job_id: str) -> Path:
    """On the disk of the state, which outlives the process; where every start has a new disk, training begins anew."""
    return settings.state_dir / "checkpoints" / f"{job_id}.pt"


async def clear_checkpoints(store: Store, settings: Settings) -> None:
    """Remove what jobs left that are over: killed for the last time, cancelled, or unknown to the store."""
    for path in checkpoint_path(settings, "").parent.glob("*"):
        try:
            live = (await store.job(path.name.split(".")[0])).status in _LIVE
        except NotFound:
            live = False
        if not live:
            path.unlink(missing_ok=True)


def forget(settings: Settings, job_id: str) -> None:
    """The job is done or has failed: it will not go on."""
    for path in checkpoint_path(settings, job_id).parent.glob(f"{job_id}.*"):
        path.unlink(missing_ok=True)
