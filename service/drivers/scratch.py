"""Folders for what is being made. Their maker holds a lock while it lives, so what a dead one left can be told and
cleared away by anybody on the same machine, whose name they end with: on a shared file system a lock may not be seen
from another one, and where there are no locks nothing is cleared away."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

JOB = "job-"
"""The prefix of a retraining job's folder."""

ADAPTER_NOTE = "adapter-name"
"""The file in it that names what the job is about to publish."""


_MACHINE = re.sub(r"[^A-Za-z0-9.-]", "", socket.gethostname())


@contextmanager
def scratch(root: Path, prefix: str) -> Iterator[Path]:
    """A new folder `<root>/<prefix>…@<machine>`, ours until the block ends; then it is gone, unless it was renamed."""
    root.mkdir(parents=True, exist_ok=True)
    folder, lock = _make(root, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def abandoned(root: Path, prefix: str) -> Iterator[Path]:
    """The folders whose makers are gone, each locked by us while it is looked at; removing them is the caller's."""
    for folder in sorted(root.glob(f"{prefix}*@{_MACHINE}")):
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                if _locked(lock):
                    yield folder
            finally:
                os.close(lock)


def clear_abandoned(root: Path, prefix: str) -> None:
    """Remove what dead makers left."""
    for folder in abandoned(root, prefix):
        shutil.rmtree(folder, ignore_errors=True)


def _make(root: Path, prefix: str) -> tuple[Path, int]:
    while True:
        folder = root / f"{prefix}{uuid.uuid4().hex}@{_MACHINE}"
        folder.mkdir()
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            # Whoever clears up may have found it before the lock was ours, and removed it.
            if _locked(lock) is not False and folder.exists():
                return folder, lock
            os.close(lock)


def _locked(handle: int) -> bool | None:
    """Whether the lock is ours now; None where this file system has none for folders (NFS)."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
