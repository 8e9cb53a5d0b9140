"""Takes closed segments to the store: idempotently, in batches, the oldest first; a record that it refuses goes alone.

It runs in a process of its own (`service/ship.py`): what a record costs on its way to the store is as much as a third
of what its request cost the gateway, and no request should wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from service.core.errors import BadRequest, TrimtabError, Unavailable
from service.core.records import Capture, Feedback, ShadowReply
from service.drivers.failpoints import Failpoint, reach
from service.gateway.dead_letters import bury, read_letters, remove
from service.gateway.spool import abandoned, closed_segments, folders, read_lines
from service.ports import Erasures, Traffic

_log = logging.getLogger(__name__)

Record = Capture | ShadowReply | Feedback

TAGS: tuple[tuple[bytes, type[Record]], ...] = ((b"C", Capture), (b"S", ShadowReply), (b"F", Feedback))
"""The first byte of each line says what it holds."""

_DECODERS = {tag: msgspec.json.Decoder(kind) for tag, kind in TAGS}

_BATCH = 500
_PATIENCE = 5
"""After so many failures in a row that do not say 'away', the batch itself is suspected."""

_TAKE_OVER_EVERY_S = 2.0
_LETTERS_EVERY_S = 10.0
_LAST_S = 5.0
_MAX_PAUSE_S = 5.0


class Shipped(msgspec.Struct, frozen=True):
    """How many records the store took, and how many it refused."""

    rows: int = 0
    refused: int = 0


class Sink(Traffic, Erasures, Protocol):
    """What the shipper needs of a store."""


class Shipper:
    """Ships what is below `root`; `told` hears what came of it."""

    def __init__(self, root: Path, sink: Sink, told: Callable[[Shipped], None]) -> None:
        self._root = root
        self._sink = sink
        self._told = told
        self._failures = 0
        self._buried: set[bytes] = set()

    async def run(self, folder: Path, ended: asyncio.Event, interval_s: float) -> None:
        """Ship the folder's segments as they are closed, and what dead processes left, until `ended`.

        At the end it takes a few seconds for what is there; the rest waits on the disk.
        """
        loop = asyncio.get_running_loop()
        look_at = letters_at = loop.time()
        while not ended.is_set():
            if await self.ship(folder) and loop.time() >= look_at:
                await self.take_over(folder)
                look_at = loop.time() + _TAKE_OVER_EVERY_S
                if loop.time() >= letters_at:
                    letters_at = loop.time() + _LETTERS_EVERY_S
                    await self.drop_erased_letters()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s(interval_s)):
                    await ended.wait()
        try:
            async with asyncio.timeout(_LAST_S):
                await self.ship(folder)
                await self.take_over(folder, only=True)
        except TimeoutError:
            _log.warning("the store did not take all captures in time; they stay in the spool")

    async def ship(self, folder: Path) -> bool:
        """Send the folder's closed segments; False when the store is away."""
        for segment in closed_segments(folder):
            try:
                for lines in read_lines(segment, _BATCH):
                    await self._ship_lines(lines)
            except FileNotFoundError:  # whoever took the folder over has shipped it
                continue
            except Exception as error:
                self._failures += 1
                if self._failures == 1:
                    _log.warning("captures wait in the spool, the store refused them: %s", error)
                return False
            reach(Failpoint.SHIPPED)
            segment.unlink(missing_ok=True)
            reach(Failpoint.SHIPPED_DELETED)
            self._buried.clear()
            self._failures = 0
        return True

    async def take_over(self, ours: Path, *, only: bool = False) -> None:
        """Ship and remove the folders of processes that are gone; `only`: ours alone, if its gateway was killed."""
        for folder in [ours] if only else folders(self._root):
            if folder == ours and not only:
                continue
            with abandoned(folder) as gone:
                if gone and await self.ship(folder):
                    reach(Failpoint.TAKEN_OVER)
                    shutil.rmtree(folder, ignore_errors=True)

    async def drop_erased_letters(self) -> None:
        """Dead letters of erased requests go; those that cannot be read are left to a person."""
        seen = [letter.seen for letter in read_letters(self._root) if letter.seen is not None]
        try:
            for at in range(0, len(seen), _BATCH):
                if taken := await self._sink.erased(seen[at : at + _BATCH]):
                    remove(self._root, taken)
        except TrimtabError as error:
            _log.warning("dead letters were not looked through: %s", error)

    async def _ship_lines(self, lines: Sequence[bytes]) -> None:
        rows: dict[bytes, list[tuple[bytes, Record]]] = {tag: [] for tag in _DECODERS}
        for line in lines:
            tag = line[:1]
            try:
                rows[tag].append((line, _DECODERS[tag].decode(line[1:])))
            except KeyError:
                self._bury(line, "unknown kind of record")
            except ValueError as error:
                self._bury(line, str(error))
        for of_kind in filter(None, rows.values()):
            await self._ship_rows(of_kind)

    async def _ship_rows(self, rows: Sequence[tuple[bytes, Record]]) -> None:
        """Send; on a refusal halve, until the bad record stands alone."""
        try:
            await self._send([record for _, record in rows])
        except Exception as error:
            if not self._is_refusal(error):
                raise
            if len(rows) == 1:
                self._bury(rows[0][0], str(error))
                return
            middle = len(rows) // 2
            await self._ship_rows(rows[:middle])
            await self._ship_rows(rows[middle:])
        else:
            self._told(Shipped(rows=len(rows)))

    def _is_refusal(self, error: Exception) -> bool:
        if isinstance(error, BadRequest):
            return True
        away = isinstance(error, Unavailable | OSError)
        return not away and not isinstance(error, TrimtabError) and self._failures >= _PATIENCE

    async def _send(self, records: Sequence[Record]) -> None:
        first = records[0]
        if isinstance(first, Capture):
            await self._sink.add_captures([r for r in records if isinstance(r, Capture)])
        elif isinstance(first, ShadowReply):
            await self._sink.add_shadow_replies([r for r in records if isinstance(r, ShadowReply)])
        else:
            await self._sink.add_feedback([r for r in records if isinstance(r, Feedback)])

    def _bury(self, line: bytes, reason: str) -> None:
        if line in self._buried:
            return
        self._buried.add(line)
        _log.error("a record went to the dead letters: %s", reason)
        bury(self._root, line, reason)
        self._told(Shipped(refused=1))

    def _pause_s(self, interval_s: float) -> float:
        return max(interval_s, min(0.1 * 2.0 ** min(self._failures, 10), _MAX_PAUSE_S))
