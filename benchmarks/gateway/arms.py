"""What takes part in a comparison: something that answers chat requests, and whose CPU time can be told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.gateway.process import Process
from benchmarks.load import Load, run_load

CHAT: Mapping[str, Any] = {
    "messages": [
        {"role": "system", "content": "You answer customers of a shop in one short sentence."},
        {"role": "user", "content": "Where is my order 12345? It should have been here on Monday."},
    ],
    "temperature": 0,
    "max_tokens": 64,
}
MODEL = "support"
START_S = 90.0


class DidNotStart(Exception):
    """A program does not answer; the message says which, and how its log ends."""


class Arm(Protocol):
    """One side of a comparison. `process` is None for the stub engine, which is what all others are compared with."""

    @property
    def name(self) -> str: ...

    @property
    def process(self) -> Process | None: ...

    async def load(self, connections: int, seconds: float) -> Load:
        """Unary requests in a closed loop over so many connections."""


@dataclass(frozen=True, slots=True)
class HttpArm:
    """A server that takes OpenAI's chat requests at `url`."""

    name: str
    base_url: str
    process: Process | None = None
    key: str | None = None
    model: str = MODEL

    @property
    def url(self) -> str:
        return f"{self.base_url}/chat/completions"

    @property
    def body(self) -> dict[str, Any]:
        return {"model": self.model, **CHAT}

    async def load(self, connections: int, seconds: float) -> Load:
        return await run_load(self.url, self.body, connections=connections, seconds=seconds, key=self.key)

    async def until_answered(self) -> None:
        """Return once a request gets its reply.

        Raises:
            DidNotStart: none did within `START_S`.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                while True:
                    if await self._answers():
                        return
                    await asyncio.sleep(0.1)
        raise DidNotStart(f"{self.name} does not answer: {self._last_words()}")

    async def _answers(self) -> bool:
        if self.process is not None and not self.process.alive:
            raise DidNotStart(f"{self.name} ended: {self._last_words()}")
        with suppress(OSError):
            return (await self.load(1, 0.0)).failed == 0
        return False

    def _last_words(self) -> str:
        return self.process.last_words() if self.process is not None else "nothing is known of it"
