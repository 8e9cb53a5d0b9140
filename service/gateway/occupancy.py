"""What clients have at each engine: how many requests, and of which adapters. The mirror keeps out of their way."""

from __future__ import annotations

IN_USE_S = 60.0
"""An adapter that clients used within this time keeps its place in the engine."""


class Occupancy:
    """Counted at both ends of each client's request to an engine."""

    def __init__(self) -> None:
        self._live: dict[str, int] = {}
        self._adapters: dict[str, dict[str, int]] = {}
        self._left_at: dict[tuple[str, str], float] = {}

    def entered(self, engine: str, adapter: str) -> None:
        self._live[engine] = self._live.get(engine, 0) + 1
        adapters = self._adapters.setdefault(engine, {})
        adapters[adapter] = adapters.get(adapter, 0) + 1

    def left(self, engine: str, adapter: str, now: float) -> None:
        self._live[engine] -= 1
        self._adapters[engine][adapter] -= 1
        self._left_at[engine, adapter] = now

    def live(self, engine: str) -> int:
        """Requests of clients at the engine now."""
        return self._live.get(engine, 0)

    def adapters(self, engine: str, now: float) -> frozenset[str]:
        """Those that clients use at the engine, or have used in the last `IN_USE_S`; it forgets the others."""
        used = self._adapters.get(engine, {})
        for adapter in [name for name, running in used.items() if running == 0]:
            if now - self._left_at[engine, adapter] > IN_USE_S:
                del used[adapter], self._left_at[engine, adapter]
        return frozenset(used)
