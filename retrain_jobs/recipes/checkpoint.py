"""The state of a training in one file, replaced as a whole: who is killed at any moment goes on where it last stood."""

from __future__ import annotations

import io
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Checkpoint:
    """Written at most every `every_s` seconds.

    Attributes:
        key: what the training is made from; a file with another key is none of ours.
    """

    path: Path
    key: str
    every_s: float
    clock: Callable[[], float] = time.monotonic
    _last: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._last = self.clock()

    def read(self) -> Mapping[str, Any] | None:
        """What was last kept; None where there is nothing, something else, or a file that cannot be read."""
        try:
            found = torch.load(self.path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
            log.warning("the checkpoint %s cannot be read (%s); training begins anew", self.path, error)
            return None
        if not isinstance(found, Mapping) or found.get("key") != self.key:
            log.warning("the checkpoint %s is of other rows or settings; training begins anew", self.path)
            return None
        state: Mapping[str, Any] = found["state"]
        return state

    def keep(self, state: Callable[[], Mapping[str, Any]], *, last: bool = False) -> None:
        """Write the state when it is time, or the last one; the file is the old one or the new, never half of one.

        Raises OSError when the disk has no room.
        """
        now = self.clock()
        if now - self._last < self.every_s and not last:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(f".{os.getpid()}.draft")
        content = io.BytesIO()
        torch.save({"key": self.key, "state": dict(state())}, content)
        try:
            with draft.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        self._last = self.clock()
