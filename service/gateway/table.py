"""The routing table in force, swapped by one assignment, and the choice among the engines that it names."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from service.core.routing import RoutingTable

_SUSPECT_S = 1.0
"""How long an engine that just failed is passed over while another one can answer."""


class Routes:
    """What this process routes by. `table` is None until the store has been read once."""

    def __init__(self) -> None:
        self.table: RoutingTable | None = None
        self.confirmed_at = 0.0
        self._loads: dict[str, int] = {}
        self._suspect_until: dict[str, float] = {}
        self._answers: dict[str, bool] = {}
        self._turn = 0

    def swap(self, table: RoutingTable, now: float) -> bool:
        """Serve from `table` from now on; whether it differs from the one before."""
        changed = table != self.table
        if changed:
            self.table = table
        self.confirmed_at = now
        return changed

    @property
    def ready_engines(self) -> int:
        """Engines that the table calls ready and that answer this process: the table may be older than their death."""
        table = self.table
        return sum(engine.ready and self._answers.get(engine.url, False) for engine in table.engines) if table else 0

    def probed(self, engine: str, answers: bool) -> None:
        """What the newest probe of the engine found; a silent one is chosen only where there is no other."""
        self._answers[engine] = answers

    def pick(self, engines: Sequence[str], now: float, avoid: Collection[str] = ()) -> str | None:
        """The engine with the fewest of our requests, healthy ones first; None when all are to be avoided."""
        open_to_us = [url for url in engines if url not in avoid] if avoid else engines
        if len(open_to_us) <= 1:
            return open_to_us[0] if open_to_us else None
        self._turn += 1
        count = len(open_to_us)
        order = [open_to_us[(self._turn + i) % count] for i in range(count)]
        return min(order, key=lambda url: (self._doubtful(url, now), self._loads.get(url, 0)))

    def _doubtful(self, engine: str, now: float) -> bool:
        return self._suspect_until.get(engine, 0.0) > now or not self._answers.get(engine, True)

    def entered(self, engine: str) -> None:
        self._loads[engine] = self._loads.get(engine, 0) + 1

    def left(self, engine: str) -> None:
        self._loads[engine] -= 1

    def suspect(self, engine: str, now: float) -> None:
        """The engine failed just now; prefer others for a moment."""
        self._suspect_until[engine] = now + _SUSPECT_S
