"""Segments on disk: one folder a process, held by a lock, so that what a dead process left behind can be told.

    spool/<instance>/lock              held while the process lives
    spool/<instance>/000001.open       the segment that is written: one record a line
    spool/<instance>/000001.jsonl      a closed one: shipped whole, then deleted
    spool/dead-letters.jsonl           records that the store refuses (dead_letters.py)

Blocking calls only; `capture.py` makes the writer's on one thread of its own, `shipper.py` the reader's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from uuid import uuid4

from service.drivers.failpoints import Failpoint, reach

LOCK = "lock"
_OPEN = ".open"
_CLOSED = ".jsonl"


class Spool:
    """This process's folder below `root`: what its records are written to."""

    def __init__(self, root: Path, segment_bytes: int) -> None:
        self.folder = root / f"{os.getpid()}-{uuid4().hex[:8]}"
        self.size_bytes = 0
        """What waits to be shipped below `root`: as `tend` found it, and what was added since."""
        self._root = root
        self._segment_bytes = segment_bytes
        self._number = 0
        self._open_fd: int | None = None
        self._open_path = self.folder
        self._open_bytes = 0
        self._lock_fd = -1

    def start(self) -> None:
        while not self._began():
            pass
        _clear(self._root)
        self.tend()

    def append(self, lines: bytes | bytearray) -> None:
        """Add whole lines and put them on the disk."""
        if self._open_fd is None:
            self._number += 1
            self._open_path = self.folder / f"{self._number:06d}{_OPEN}"
            self._open_fd = os.open(self._open_path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_EXCL, 0o600)
        view = memoryview(lines)
        try:
            while view:
                view = view[os.write(self._open_fd, view) :]
            reach(Failpoint.SPOOL_APPENDED)
            os.fdatasync(self._open_fd)
        except OSError:
            os.ftruncate(self._open_fd, self._open_bytes)
            raise
        self._open_bytes += len(lines)
        self.size_bytes += len(lines)
        if self._open_bytes >= self._segment_bytes:
            self.seal()

    def seal(self) -> None:
        """Close the open segment, so that it can be shipped."""
        if self._open_fd is None:
            return
        self._open_path.rename(self._open_path.with_suffix(_CLOSED))
        os.close(self._open_fd)
        reach(Failpoint.SPOOL_SEALED)
        self._open_fd, self._open_bytes = None, 0

    def tend(self) -> None:
        """See what waits; close the open segment where no other does, so that few large ones wait for a store away."""
        if not closed_segments(self.folder):
            self.seal()
        self.size_bytes = sum(_size_bytes(folder) for folder in folders(self._root))

    def stop(self) -> None:
        """Leave what was not shipped to others; an empty folder goes."""
        self.seal()
        if not closed_segments(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock_fd)

    def _began(self) -> bool:
        """Make our folder, locked under a hidden name first: nobody may take one that is just being made for a dead
        one's. False where somebody did so before the lock was ours."""
        hidden = self.folder.with_name(f".{self.folder.name}")
        hidden.mkdir(parents=True, exist_ok=True)
        try:
            self._lock_fd = os.open(hidden / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        except FileNotFoundError:
            return False
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
        reach(Failpoint.SPOOL_LOCKED)
        try:
            hidden.rename(self.folder)
        except FileNotFoundError:
            os.close(self._lock_fd)
            return False
        return True


def folders(root: Path) -> list[Path]:
    """Of the processes that write or have written below `root`, hidden ones of those that are just starting too."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(Path(entry) for entry in os.scandir(root) if entry.is_dir())
    return []


def closed_segments(folder: Path) -> list[Path]:
    """What is ready to be shipped, oldest first; nothing where the folder is gone."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(Path(entry) for entry in os.scandir(folder) if entry.name.endswith(_CLOSED))
    return []


def read_lines(segment: Path, at_once: int) -> Iterator[list[bytes]]:
    """A segment's whole lines, so many at a time; a last one that was torn by a crash is left out."""
    with segment.open("rb") as file:
        while lines := [line[:-1] for line in islice(file, at_once) if line.endswith(b"\n")]:
            yield lines


@contextlib.contextmanager
def abandoned(folder: Path) -> Iterator[bool]:
    """Whether the folder's owner is gone; if so the folder is ours within the block, with all its segments closed."""
    try:
        lock = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    except FileNotFoundError:  # another process has just removed it
        yield False
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        for torn in folder.glob(f"*{_OPEN}"):
            torn.rename(torn.with_suffix(_CLOSED))
        yield True
    finally:
        os.close(lock)


def _clear(root: Path) -> None:
    """Remove folders in which dead processes left nothing to ship."""
    for folder in folders(root):
        with abandoned(folder) as gone:
            if gone and not closed_segments(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _size_bytes(folder: Path) -> int:
    total = 0
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            with contextlib.suppress(FileNotFoundError):
                total += entry.stat().st_size
    return total
