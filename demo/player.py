"""Plays an app against the service: an open loop of requests, feedback for some of them, and an account of it all."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp

TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Ask:
    """What a customer asks, and the reply that would be right."""

    messages: Sequence[Mapping[str, str]]
    target: str
    novel: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """One request as the client saw it. Times are of the monotonic clock; `error` is empty when it succeeded."""

    sent_at: float
    duration_s: float
    adapter: str
    novel: bool
    right: bool
    error: str


Customers = Callable[[random.Random, float], Ask]
"""Draws the next customer: (randomness, share of novel requests 0..1) → what they ask."""


class Player:
    """Sends `rate` requests a second whatever the service does, as real clients would."""

    def __init__(
        self,
        url: str,
        alias: str,
        customers: Customers,
        *,
        rate: float,
        feedback_ratio: float,
        max_tokens: int,
        seed: int,
    ) -> None:
        self.answered: list[Answered] = []
        self.novel_ratio = 0.0
        self._url = url
        self._alias = alias
        self._customers = customers
        self._rate = rate
        self._feedback_ratio = feedback_ratio
        self._max_tokens = max_tokens
        self._random = random.Random(seed)
        self._running: set[asyncio.Task[None]] = set()

    async def play(self, stop: asyncio.Event) -> None:
        """Send until `stop`, then wait for the replies that are still due."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http:
            due = time.monotonic()
            while not stop.is_set():
                task = asyncio.create_task(self._one(http, self._customers(self._random, self.novel_ratio)))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
                due += self._random.expovariate(self._rate)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            await asyncio.gather(*self._running)

    async def _one(self, http: aiohttp.ClientSession, ask: Ask) -> None:
        sent_at = time.monotonic()
        wants_feedback = self._random.random() < self._feedback_ratio
        body = {
            "model": self._alias,
            "messages": list(ask.messages),
            "temperature": 0,
            "max_tokens": self._max_tokens,
        }
        adapter, request_id, reply, error = "", "", "", ""
        try:
            async with http.post(f"{self._url}/v1/chat/completions", json=body) as answer:
                data = await answer.json(content_type=None)
                adapter = answer.headers.get("x-trimtab-adapter", "")
                request_id = answer.headers.get("x-request-id", "")
                if answer.status == 200:
                    reply = data["choices"][0]["message"]["content"]
                else:
                    error = f"{answer.status}: {data}"
        except (aiohttp.ClientError, TimeoutError, KeyError, ValueError) as failure:
            error = f"{type(failure).__name__}: {failure}"
        duration_s = time.monotonic() - sent_at
        right = not error and reply.strip() == ask.target.strip()
        self.answered.append(Answered(sent_at, duration_s, adapter, ask.novel, right, error))
        if not error and wants_feedback:
            await self._give_feedback(http, request_id, ask.target)

    async def _give_feedback(self, http: aiohttp.ClientSession, request_id: str, target: str) -> None:
        """People take a moment, so feedback comes after its request."""
        await asyncio.sleep(self._random.uniform(0.2, 2.0))
        body = {"request_id": request_id, "expected": target}
        try:
            async with http.post(f"{self._url}/v1/feedback", json=body) as answer:
                if answer.status >= 300:
                    self._note_failed_feedback(f"{answer.status}: {await answer.text()}")
        except (aiohttp.ClientError, TimeoutError) as failure:
            self._note_failed_feedback(f"{type(failure).__name__}: {failure}")

    def _note_failed_feedback(self, error: str) -> None:
        self.answered.append(Answered(time.monotonic(), 0.0, "", False, False, f"feedback: {error}"))


def quality(answered: Sequence[Answered]) -> float:
    """Share of right replies among those that came; NaN when there are none."""
    came = [a for a in answered if not a.error]
    return sum(a.right for a in came) / len(came) if came else float("nan")


def between(answered: Sequence[Answered], start: float, end: float) -> list[Answered]:
    """Requests sent in [start, end) of the monotonic clock."""
    return [a for a in answered if start <= a.sent_at < end]
