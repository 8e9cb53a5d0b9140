"""The shipper as a task of the test's own process, over a sink that the test can look into."""

from __future__ import annotations

import asyncio
from pathlib import Path

from service.gateway.shipper import Shipper
from service.gateway.shipping import Told
from service.ports import Traffic


class InThisProcess:
    def __init__(self, sink: Traffic, interval_s: float) -> None:
        self.sink = sink
        self.interval_s = interval_s
        self.ended = asyncio.Event()

    async def start(self, folder: Path, told: Told) -> None:
        shipper = Shipper(folder.parent, self.sink, told)
        self.task = asyncio.create_task(shipper.run(folder, self.ended, self.interval_s))

    async def stop(self) -> None:
        self.ended.set()
        await self.task
