"""How many requests of an alias may be at the engines, and how many may wait; the rest are told when to retry."""

from __future__ import annotations

import asyncio
from collections import deque

from service.core.errors import Overloaded
from service.settings import GatewaySettings
from service.telemetry import GatewayMetrics

_RETRY_AFTER_S = 1.0


class Lane:
    """One alias's places and its queue, first come first served."""

    def __init__(self, places: int, queue: int) -> None:
        self.in_flight = 0
        self._places = places
        self._max_queue = queue
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def queued(self) -> int:
        return len(self._queue)

    async def enter(self) -> None:
        """Take a place, waiting for one if need be; Overloaded when even the queue is full."""
        if self.in_flight < self._places and not self._queue:
            self.in_flight += 1
            return
        if len(self._queue) >= self._max_queue:
            raise Overloaded(
                "Too many requests are waiting for this model; retry after the time in Retry-After.",
                retry_after_s=_RETRY_AFTER_S,
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            elif turn in self._queue:  # else `leave` has passed it over already
                self._queue.remove(turn)
            raise

    def leave(self) -> None:
        """Give the place up, to whoever has waited longest."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.in_flight -= 1


class Admission:
    """A lane for each alias in the routing table."""

    def __init__(self, settings: GatewaySettings, metrics: GatewayMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._lanes: dict[str, Lane] = {}

    def lane(self, alias: str) -> Lane:
        """`alias` comes from the routing table, so that clients cannot make lanes."""
        lane = self._lanes.get(alias)
        if lane is None:
            lane = self._lanes[alias] = Lane(self._settings.max_in_flight, self._settings.max_queue)
            self._metrics.in_flight.labels(alias).set_function(lambda: lane.in_flight)
            self._metrics.queued.labels(alias).set_function(lambda: lane.queued)
        return lane
