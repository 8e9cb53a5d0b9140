"""Clears away what processes of this machine left half-made when they died: drafts, uploads, jobs' folders, adapters
that were stored and never registered."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from service.core.errors import NotFound
from service.core.names import is_adapter, parse_adapter
from service.core.records import JobStatus
from service.drivers.scratch import ADAPTER_NOTE, JOB, abandoned
from service.ports import Blobs, Store

_UNFINISHED = frozenset({JobStatus.QUEUED, JobStatus.RUNNING})


class Sweeper:
    """Looks at `scratch_dir` and the adapter store's drafts at each `sweep`."""

    def __init__(self, store: Store, blobs: Blobs, scratch_dir: Path) -> None:
        self._store = store
        self._blobs = blobs
        self._scratch_dir = scratch_dir

    async def sweep(self) -> None:
        await self._blobs.tidy()
        for folder in abandoned(self._scratch_dir, ""):
            if folder.name.startswith(JOB) and not await self._forgot_adapter(_noted(folder)):
                continue
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _forgot_adapter(self, name: str) -> bool:
        """Remove the adapter that the job stored and did not register; False while another attempt may still do so."""
        if not is_adapter(name):
            return True
        try:
            await self._store.adapter(name)
        except NotFound:
            if any(job.status in _UNFINISHED for job in await self._store.jobs(parse_adapter(name).alias)):
                return False
            await self._blobs.delete(name)
        return True


def _noted(folder: Path) -> str:
    note = folder / ADAPTER_NOTE
    return note.read_text("utf-8") if note.is_file() else ""
