"""The outbox: records go to a local segment, are made durable in small batches, and reach the store idempotently.

Serving never waits on it. With the store away the spool grows to its cap and then counts what it drops; a record that
the store refuses goes to the dead letters alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec

from service.core.errors import BadRequest, ConfigError, TrimtabError, Unavailable
from service.core.records import Capture, Feedback, ShadowReply
from service.drivers.failpoints import Failpoint, reach
from service.gateway.spool import Spool
from service.ports import Clock, Traffic
from service.settings import CaptureSettings
from service.telemetry import GatewayMetrics

_log = logging.getLogger(__name__)

Record = Capture | ShadowReply | Feedback
P = ParamSpec("P")
R = TypeVar("R")

_TAGS: tuple[tuple[bytes, type[Record]], ...] = ((b"C", Capture), (b"S", ShadowReply), (b"F", Feedback))
_DECODERS = {tag: msgspec.json.Decoder(kind) for tag, kind in _TAGS}
_TAG_OF = {kind: tag for tag, kind in _TAGS}

MAX_WAITING_BYTES = 32 * 2**20
"""Records in memory that the disk has not taken yet; beyond it the disk is stuck and records are dropped."""

_BATCH = 500
_SLICE = 100
"""Records decoded in one go, while requests wait."""

_PATIENCE = 5
"""After so many failures in a row that do not say 'away', the batch itself is suspected."""
_ADOPT_EVERY_S = 30.0
_STOP_S = 5.0
_MAX_PAUSE_S = 5.0


class Outbox:
    """Takes records at once; writes and ships them in the background between `start` and `stop`."""

    def __init__(
        self, folder: Path, settings: CaptureSettings, sink: Traffic, metrics: GatewayMetrics, clock: Clock
    ) -> None:
        self._settings = settings
        self._sink = sink
        self._metrics = metrics
        self._clock = clock
        self._spool = Spool(folder, settings.segment_bytes)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._encode = msgspec.json.Encoder().encode
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._writing = asyncio.Lock()
        self._shipping = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._failures = 0
        self._buried: set[bytes] = set()

    async def start(self) -> None:
        try:
            await self._on_thread(self._spool.start)
        except OSError as error:
            raise ConfigError(f"The spool cannot be written ({error}); make state_dir writable.") from error
        loops = (
            self._every(self.write, lambda: self._settings.fsync_interval_s),
            self._every(self.ship, self._ship_pause_s),
            self._every(self._adopt, lambda: _ADOPT_EVERY_S),
        )
        self._tasks = [asyncio.create_task(loop) for loop in loops]

    async def stop(self) -> None:
        """Write everything; ship what the store takes within a few seconds; the rest waits on the disk."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.write()
        try:
            async with asyncio.timeout(_STOP_S):
                await self.ship()
        except TimeoutError:
            _log.warning("the store did not take all captures in time; they stay in the spool")
        await self._on_thread(self._spool.stop)
        self._thread.shutdown()

    def put(self, record: Record) -> bool:
        """Take a record without waiting; False, and counted, when there is no room for it."""
        if self._waiting_bytes > MAX_WAITING_BYTES:
            return self._drop("disk_stuck")
        if self._spool.size_bytes + self._waiting_bytes >= self._settings.spool_bytes:
            return self._drop("spool_full")
        line = _TAG_OF[type(record)] + self._encode(record) + b"\n"
        self._waiting.append(line)
        self._waiting_bytes += len(line)
        return True

    async def write(self) -> None:
        """Return once every record taken so far is on the disk."""
        async with self._writing:
            if not self._waiting:
                return
            lines, count = b"".join(self._waiting), len(self._waiting)
            self._waiting.clear()
            # Whoever is cancelled here must not take the records along: they are on no other list any more.
            await asyncio.shield(self._append(lines, count))

    async def _append(self, lines: bytes, count: int) -> None:
        try:
            await self._on_thread(self._spool.append, lines)
        except OSError as error:
            _log.error("%d captures could not be written: %s", count, error)
            self._metrics.captures_dropped.labels("disk_failed").inc(count)
        finally:
            self._waiting_bytes -= len(lines)
        self._metrics.spool_bytes.set(self._spool.size_bytes)

    async def ship(self) -> bool:
        """Send what has been written so far to the store; False when it is away.

        What is written meanwhile waits for the next time: many records at once cost the store a third of what few do.
        """
        async with self._shipping:
            await self._on_thread(self._spool.seal)
            while (segment := await self._on_thread(self._spool.oldest)) is not None:
                lines = await self._on_thread(self._spool.read, segment)
                try:
                    for at in range(0, len(lines), _BATCH):
                        await self._ship_lines(lines[at : at + _BATCH])
                except Exception as error:
                    self._failures += 1
                    if self._failures == 1:
                        _log.warning("captures wait in the spool, the store refused them: %s", error)
                    return False
                reach(Failpoint.SPOOL_SHIPPED)
                await self._on_thread(self._spool.delete, segment)
                self._buried.clear()
                self._failures = 0
                self._metrics.spool_bytes.set(self._spool.size_bytes)
        return True

    async def _ship_lines(self, lines: Sequence[bytes]) -> None:
        rows: dict[bytes, list[tuple[bytes, Record]]] = {tag: [] for tag in _DECODERS}
        for number, line in enumerate(lines):
            tag = line[:1]
            try:
                rows[tag].append((line, _DECODERS[tag].decode(line[1:])))
            except KeyError:
                await self._bury(line, "unknown kind of record")
            except ValueError as error:
                await self._bury(line, str(error))
            if number % _SLICE == 0:
                await asyncio.sleep(0)
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
                await self._bury(rows[0][0], str(error))
                return
            middle = len(rows) // 2
            await self._ship_rows(rows[:middle])
            await self._ship_rows(rows[middle:])
        else:
            self._metrics.captures.inc(len(rows))

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

    async def _bury(self, line: bytes, reason: str) -> None:
        if line in self._buried:
            return
        self._buried.add(line)
        _log.error("a record went to the dead letters: %s", reason)
        self._metrics.captures_dropped.labels("refused").inc()
        await self._on_thread(self._spool.bury, line, reason)

    def _drop(self, reason: str) -> bool:
        self._metrics.captures_dropped.labels(reason).inc()
        return False

    async def _every(self, step: Callable[[], Awaitable[object]], pause_s: Callable[[], float]) -> None:
        while True:
            await self._clock.sleep(pause_s())
            try:
                await step()
            except OSError as error:
                _log.error("the spool failed: %s", error)

    def _ship_pause_s(self) -> float:
        return max(self._settings.ship_interval_s, min(0.1 * 2.0 ** min(self._failures, 10), _MAX_PAUSE_S))

    async def _adopt(self) -> None:
        await self._on_thread(self._spool.adopt)

    async def _on_thread(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(call, *args, **kwargs))
