"""Telling how a long command goes: often enough to be seen, seldom enough to be read."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

LOG_EVERY_S = 5.0
DRAW_EVERY_S = 0.2
_OVER = "\r\x1b[K"


class Sparingly:
    """Says something at most every `every_s` seconds, the first time after as long; what comes between is not said."""

    def __init__(self, say: Callable[[str], None], every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._every_s = every_s
        self._clock = clock
        self._last = clock()

    def __call__(self, text: str) -> None:
        now = self._clock()
        if now - self._last >= self._every_s:
            self._last = now
            self._say(text)


class StatusLine:
    """One line that is written over at a terminal; anywhere else a line now and then."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._drawn = stream.isatty()
        self._say = Sparingly(self._draw, DRAW_EVERY_S) if self._drawn else Sparingly(self._print, LOG_EVERY_S)

    def __call__(self, text: str) -> None:
        self._say(text)

    def close(self) -> None:
        """What comes next begins at the start of a line."""
        if self._drawn:
            self._stream.write(_OVER)
            self._stream.flush()

    def _draw(self, text: str) -> None:
        self._stream.write(_OVER + text)
        self._stream.flush()

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)
