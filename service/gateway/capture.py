"""The outbox: records go to a local segment, are made durable in small batches, and reach the store idempotently.

Serving never waits on it. With the store away the spool grows to its cap and then counts what it drops; a record that
the store refuses goes to the dead letters alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec

from service.core.errors import ConfigError
from service.gateway.shipper import TAGS, Record, Shipped
from service.gateway.shipping import Shipping
from service.gateway.spool import Spool
from service.ports import Clock
from service.settings import CaptureSettings
from service.telemetry import GatewayMetrics

_log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_TAG_OF = {kind: tag for tag, kind in TAGS}

MAX_WAITING_BYTES = 32 * 2**20
"""Records in memory that the disk has not taken yet; beyond it the disk is stuck and records are dropped."""


class Outbox:
    """Takes records at once; writes them in the background between `start` and `stop`, and has them shipped."""

    def __init__(
        self, root: Path, settings: CaptureSettings, shipping: Shipping, metrics: GatewayMetrics, clock: Clock
    ) -> None:
        self._settings = settings
        self._shipping = shipping
        self._metrics = metrics
        self._clock = clock
        self._spool = Spool(root, settings.segment_bytes)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._encode_into = msgspec.json.Encoder().encode_into
        self._lines = bytearray()
        self._count = 0
        self._waiting_bytes = 0
        self._writing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        try:
            await self._on_thread(self._spool.start)
        except OSError as error:
            raise ConfigError(f"The spool cannot be written ({error}); make state_dir writable.") from error
        await self._shipping.start(self._spool.folder, self._shipped)
        loops = (
            self._every(self.write, self._settings.fsync_interval_s),
            self._every(self._tend, self._settings.ship_interval_s),
        )
        self._tasks = [asyncio.create_task(loop) for loop in loops]

    async def stop(self) -> None:
        """Write everything; ship what the store takes within a few seconds; the rest waits on the disk."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.write()
        await self._on_thread(self._spool.seal)
        await self._shipping.stop()
        await self._on_thread(self._spool.stop)
        self._thread.shutdown()

    def put(self, record: Record) -> bool:
        """Take a record without waiting; False, and counted, when there is no room for it."""
        if self._waiting_bytes > MAX_WAITING_BYTES:
            return self._drop("disk_stuck")
        if self._spool.size_bytes + self._waiting_bytes >= self._settings.spool_bytes:
            return self._drop("spool_full")
        lines = self._lines
        start = len(lines)
        lines += _TAG_OF[type(record)]
        try:
            self._encode_into(record, lines, -1)
        except BaseException:
            del lines[start:]
            raise
        lines += b"\n"
        self._count += 1
        self._waiting_bytes += len(lines) - start
        return True

    async def write(self) -> None:
        """Return once every record taken so far is on the disk."""
        async with self._writing:
            if not self._count:
                return
            lines, count = self._lines, self._count
            self._lines, self._count = bytearray(), 0
            # Whoever is cancelled here must not take the records along: they are on no other list any more.
            await asyncio.shield(self._append(lines, count))

    async def _append(self, lines: bytearray, count: int) -> None:
        try:
            await self._on_thread(self._spool.append, lines)
        except OSError as error:
            _log.error("%d captures could not be written: %s", count, error)
            self._metrics.captures_dropped.labels("disk_failed").inc(count)
        finally:
            self._waiting_bytes -= len(lines)

    async def _tend(self) -> None:
        await self._on_thread(self._spool.tend)
        self._metrics.spool_bytes.set(self._spool.size_bytes)

    def _shipped(self, shipped: Shipped) -> None:
        self._metrics.captures.inc(shipped.rows)
        if shipped.refused:
            self._metrics.captures_dropped.labels("refused").inc(shipped.refused)

    def _drop(self, reason: str) -> bool:
        self._metrics.captures_dropped.labels(reason).inc()
        return False

    async def _every(self, step: Callable[[], Awaitable[object]], pause_s: float) -> None:
        while True:
            await self._clock.sleep(pause_s)
            try:
                await step()
            except OSError as error:
                _log.error("the spool failed: %s", error)

    async def _on_thread(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(call, *args, **kwargs))
