"""Segments on disk: one folder a process, held by a lock, so that what a dead process left behind can be adopted.

    spool/<instance>/lock              held while the process lives
    spool/<instance>/000001.jsonl      a segment: one record a line, appended, shipped whole, deleted
    spool/dead-letters.jsonl           records that the store refuses

Blocking calls only; `capture.py` makes them on one thread of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections import deque
from pathlib import Path
from uuid import uuid4

from service.drivers.failpoints import Failpoint, reach

LOCK = "lock"
DEAD_LETTERS = "dead-letters.jsonl"
_SEGMENT = "*.jsonl"


class Spool:
    """This process's folder below `root`."""

    def __init__(self, root: Path, segment_bytes: int) -> None:
        self._root = root
        self._segment_bytes = segment_bytes
        self._folder = root / f"{os.getpid()}-{uuid4().hex[:8]}"
        self._number = 0
        self._open_fd: int | None = None
        self._open_path: Path | None = None
        self._open_bytes = 0
        self._sealed: deque[tuple[Path, int]] = deque()
        self._lock_fd = -1

    def start(self) -> None:
        while not self._began():
            pass
        self.adopt()

    @property
    def size_bytes(self) -> int:
        """What waits to be shipped."""
        return self._open_bytes + sum(size for _, size in self._sealed)

    def append(self, lines: bytes) -> None:
        """Add whole lines and put them on the disk."""
        if self._open_fd is None:
            self._number += 1
            self._open_path = self._folder / f"{self._number:06d}.jsonl"
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
        if self._open_bytes >= self._segment_bytes:
            self.seal()

    def seal(self) -> None:
        """Close the open segment, so that it can be shipped."""
        if self._open_fd is None or self._open_path is None:
            return
        os.close(self._open_fd)
        reach(Failpoint.SPOOL_SEALED)
        self._sealed.append((self._open_path, self._open_bytes))
        self._open_fd, self._open_path, self._open_bytes = None, None, 0

    def oldest(self) -> Path | None:
        """The closed segment to ship next."""
        return self._sealed[0][0] if self._sealed else None

    def read(self, segment: Path) -> list[bytes]:
        """Its whole lines; a last one that was torn by a crash is left out."""
        return segment.read_bytes().split(b"\n")[:-1]

    def delete(self, segment: Path) -> None:
        """It was shipped."""
        segment.unlink()
        reach(Failpoint.SPOOL_DELETED)
        if self._sealed and self._sealed[0][0] == segment:
            self._sealed.popleft()

    def bury(self, line: bytes, reason: str) -> None:
        """Keep one refused record aside, for a person to look at; `reason` goes before it."""
        with (self._root / DEAD_LETTERS).open("ab") as file:
            file.write(b"# " + reason.replace("\n", " ").encode() + b"\n" + line + b"\n")

    def adopt(self) -> int:
        """Take over the segments of processes that are gone; how many there were."""
        adopted = 0
        for folder in sorted(self._root.iterdir()):
            if folder == self._folder or not folder.is_dir():
                continue
            with contextlib.suppress(FileNotFoundError):
                adopted += self._adopt_folder(folder)
        return adopted

    def stop(self) -> None:
        """Leave what could not be shipped to the next process; an empty folder goes."""
        self.seal()
        if not self._sealed:
            shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock_fd)

    def _began(self) -> bool:
        """Make our folder, locked under a hidden name first: nobody may take one that is just being made for a dead
        one's. False where somebody did so before the lock was ours."""
        hidden = self._folder.with_name(f".{self._folder.name}")
        hidden.mkdir(parents=True, exist_ok=True)
        try:
            self._lock_fd = os.open(hidden / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        except FileNotFoundError:
            return False
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
        reach(Failpoint.SPOOL_LOCKED)
        try:
            hidden.rename(self._folder)
        except FileNotFoundError:
            os.close(self._lock_fd)
            return False
        return True

    def _adopt_folder(self, folder: Path) -> int:
        lock = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return 0
            adopted = 0
            for segment in sorted(folder.glob(_SEGMENT)):
                self._number += 1
                ours = self._folder / f"{self._number:06d}.jsonl"
                segment.rename(ours)
                reach(Failpoint.SPOOL_ADOPTED)
                self._sealed.append((ours, ours.stat().st_size))
                adopted += 1
            shutil.rmtree(folder)
            return adopted
        finally:
            os.close(lock)
