"""Arms a running process's failpoints by a file, so that it need not start again for each."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from service.drivers.failpoints import arm

_LOOK_S = 0.005


def follow(path: Path) -> None:
    """Arm what `path` says now, and from now on whenever it changes."""
    told = _read(path)
    arm(told)
    threading.Thread(target=_watch, args=(path, told), daemon=True).start()


def _watch(path: Path, told: str) -> None:
    while True:
        time.sleep(_LOOK_S)
        found = _read(path)
        if found != told:
            arm(found)
            told = found


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return ""
