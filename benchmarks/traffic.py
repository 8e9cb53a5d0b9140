"""A closed loop of requests to one server: as many in flight as asked for, timed from outside."""

import asyncio
import random
import string
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """What came back, in the order of the requests."""

    replies: list[dict[str, Any]]
    latencies_s: list[float]
    wall_s: float


def chat(model: str, text: str, *, tokens: int) -> Body:
    """A greedy chat request for exactly `tokens` tokens."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
    }


def texts(count: int, *, seed: int = 0) -> list[str]:
    """Made lines of 8 to 40 letters; the tiny model reads a token a letter."""
    rng = random.Random(seed)
    letters = string.ascii_lowercase + " "
    return ["".join(rng.choices(letters, k=rng.randint(8, 40))) for _ in range(count)]


def send(url: str, bodies: Sequence[Body], concurrency: int, path: str = "/v1/chat/completions") -> Run:
    """Post every body to `url`, `concurrency` at a time."""

    async def run() -> Run:
        gate = asyncio.Semaphore(concurrency)

        async def one(body: Body) -> tuple[dict[str, Any], float]:
            async with gate:
                start = time.perf_counter()
                async with session.post(url + path, json=body) as response:
                    response.raise_for_status()
                    return await response.json(), time.perf_counter() - start

        limit = aiohttp.TCPConnector(limit=concurrency)
        async with aiohttp.ClientSession(connector=limit) as session:
            start = time.perf_counter()
            done = await asyncio.gather(*map(one, bodies))
            wall_s = time.perf_counter() - start
        return Run([reply for reply, _ in done], [taken for _, taken in done], wall_s)

    return asyncio.run(run())
