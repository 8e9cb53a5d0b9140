"""`spool/dead-letters.jsonl`: records that the store refuses, each below the reason, for a person to look at.

Gateways of one machine share the file, so whoever changes it holds its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from service.core.records import Seen

NAME = "dead-letters.jsonl"
_LOCK = ".dead-letters.lock"


@dataclass(frozen=True, slots=True)
class Letter:
    """A refused record as it was written; `seen`: what it is about, as far as that can be read."""

    reason: bytes
    line: bytes
    seen: Seen | None


class _About(msgspec.Struct):
    request_id: str
    at: float
    source: str | None = None


def bury(root: Path, line: bytes, reason: str) -> None:
    """Keep one refused record aside."""
    with _locked(root), (root / NAME).open("ab") as file:
        file.write(b"# " + reason.replace("\n", " ").encode() + b"\n" + line + b"\n")


def read_letters(root: Path) -> list[Letter]:
    with contextlib.suppress(FileNotFoundError):
        lines = (root / NAME).read_bytes().splitlines()
        return [Letter(reason, line, _about(line)) for reason, line in zip(lines[::2], lines[1::2], strict=False)]
    return []


def remove(root: Path, request_ids: Collection[str]) -> int:
    """Take the letters about these requests out of the file, whole or not at all; how many there were."""
    with _locked(root):
        letters = read_letters(root)
        kept = [one for one in letters if one.seen is None or one.seen.request_id not in request_ids]
        if len(kept) < len(letters):
            draft = root / f".{NAME}"
            draft.write_bytes(b"".join(one.reason + b"\n" + one.line + b"\n" for one in kept))
            draft.replace(root / NAME)
        return len(letters) - len(kept)


def _about(line: bytes) -> Seen | None:
    with contextlib.suppress(ValueError):
        about = msgspec.json.decode(line[1:], type=_About)
        return Seen(about.request_id, about.source, about.at)
    return None


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    lock = os.open(root / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
