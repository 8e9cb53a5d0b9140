"""The process beside each gateway that takes its captures to the store: `python -m service.ship`, started by it.

It reads its order from the first line of its input and ends with it, so it outlives a killed gateway by as much as the
gateway's last captures take.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from pathlib import Path
from typing import BinaryIO

import msgspec

from service.drivers.traffic import TrafficStore
from service.gateway.shipper import Shipped, Shipper
from service.gateway.shipping import Order
from service.processes import lower_priority

_NICE = 5


def read_order(lines: BinaryIO) -> Order:
    return msgspec.json.decode(lines.readline(), type=Order)


def main(order: Order) -> None:
    logging.basicConfig(level=order.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    lower_priority(_NICE)
    asyncio.run(_ship(order))


async def _ship(order: Order) -> None:
    ended = asyncio.Event()
    reading = asyncio.create_task(_read_to_end(ended))
    folder = Path(order.folder)
    store = TrafficStore(order.store_url)
    try:
        await Shipper(folder.parent, store, _tell).run(folder, ended, order.interval_s)
    finally:
        await store.close()
    await reading


async def _read_to_end(ended: asyncio.Event) -> None:
    await asyncio.to_thread(sys.stdin.buffer.read)
    ended.set()


def _tell(shipped: Shipped) -> None:
    with contextlib.suppress(BrokenPipeError):  # the gateway was killed: nobody counts any more
        sys.stdout.buffer.write(msgspec.json.encode(shipped) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(read_order(sys.stdin.buffer))
