"""The process that takes captures to the store, seen from the gateway: started, started again, told to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from service.gateway.shipper import Shipped
from service.ports import Clock

_log = logging.getLogger(__name__)

Told = Callable[[Shipped], None]

_END_S = 6.0
"""More than the shipper takes for what is left."""

_PAUSE_S = 1.0


class Order(msgspec.Struct, frozen=True):
    """What the process is told in the first line of its input; it ends with its input, so with the gateway.

    Not in arguments or the environment: the store's URL may hold a password.
    """

    store_url: str
    folder: str
    interval_s: float
    log_level: str


class Shipping(Protocol):
    """Whatever runs a `Shipper` for a gateway."""

    async def start(self, folder: Path, told: Told) -> None: ...

    async def stop(self) -> None:
        """Ship what is closed, as far as the store takes it within a few seconds."""


class ShippingProcess:
    """`argv` as a child: it reports what it shipped in lines of JSON, and is started again whenever it dies."""

    def __init__(self, argv: Sequence[str], *, store_url: str, interval_s: float, log_level: str, clock: Clock) -> None:
        self._argv = argv
        self._store_url = store_url
        self._interval_s = interval_s
        self._log_level = log_level
        self._clock = clock
        self._ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self, folder: Path, told: Told) -> None:
        order = Order(self._store_url, str(folder), self._interval_s, self._log_level)
        self._task = asyncio.create_task(self._keep(msgspec.json.encode(order) + b"\n", told))

    async def stop(self) -> None:
        self._ended.set()
        if self._task is not None:
            await self._task

    async def _keep(self, order: bytes, told: Told) -> None:
        while not self._ended.is_set():
            try:
                came_of_it = f"ended with code {await self._run(order, told)}"
            except OSError as error:
                came_of_it = f"could not be started ({error})"
            if not self._ended.is_set():
                _log.warning("the process that ships captures %s; it is started again", came_of_it)
                await self._clock.sleep(_PAUSE_S)

    async def _run(self, order: bytes, told: Told) -> int:
        # A group of its own: Ctrl-C must not end it before the last captures are written.
        process = await asyncio.create_subprocess_exec(
            *self._argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, preexec_fn=os.setpgrp
        )
        assert process.stdin is not None
        assert process.stdout is not None
        hearing = asyncio.create_task(_hear(process.stdout, told))
        ending = asyncio.create_task(self._ended.wait())
        try:
            with contextlib.suppress(OSError, RuntimeError):  # it has died already; uvloop says RuntimeError
                process.stdin.write(order)
            await asyncio.wait({hearing, ending}, return_when=asyncio.FIRST_COMPLETED)
            process.stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_S):
                    return await process.wait()
        finally:
            ending.cancel()
            if process.returncode is None:
                process.kill()
            await hearing
        return await process.wait()


async def _hear(lines: asyncio.StreamReader, told: Told) -> None:
    """Until the process closes its output, which is its end."""
    async for line in lines:
        told(msgspec.json.decode(line, type=Shipped))
