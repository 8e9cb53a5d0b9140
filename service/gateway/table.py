"""The routing table in force, swapped by one assignment, and the choice among the engines that it names."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from hashlib import blake2b

from service.core.records import Alias
from service.core.routing import RoutingTable, holders

_SUSPECT_S = 1.0
"""How long an engine that just failed is passed over while another one can answer."""

_UNBALANCE, _SLACK = 1.25, 1
"""A conversation's own engine may have this many times the mean load, and so many requests more."""


class Routes:
    """What this process routes by. `table` is None until the store has been read once.

    Gateways see a flip at different moments, each at its own poll. With `settle_s` above that, all of them serve the
    champion before it until `settle_s` after the flip and change at one moment of the clock that they share: who has
    seen the new one, by whichever gateway, does not meet the old one again.
    """

    def __init__(self, settle_s: float = 0.0) -> None:
        self.table: RoutingTable | None = None
        self.confirmed_at = 0.0
        self._settle_s = settle_s
        self._told: RoutingTable | None = None
        self._settles_at: dict[str, float] = {}
        self._next_at = math.inf
        self._loads: dict[str, int] = {}
        self._suspect_until: dict[str, float] = {}
        self._answers: dict[str, bool] = {}
        self._turn = 0

    def swap(self, table: RoutingTable, now: float) -> bool:
        """Serve from `table` from now on; whether it differs from the one before."""
        changed = table != self._told
        if changed:
            for alias in table.aliases.values():
                self._note_flip(alias, table, now)
            self._told = table
            self._settle(now)
        self.at(now)
        self.confirmed_at = now
        return changed

    def at(self, now: float) -> RoutingTable | None:
        """The table to route by at this moment."""
        if now >= self._next_at:
            self._settle(now)
        return self.table

    def _note_flip(self, alias: Alias, table: RoutingTable, now: float) -> None:
        before = self._told.aliases.get(alias.name) if self._told else None
        if before is not None and before.champion == alias.champion:
            return
        serving = self.table.aliases[alias.name].champion if before is not None and self.table else None
        # A clock behind the controller's may not hold the flip up for longer than one that agrees with it.
        until = min(alias.reference_since, now) + self._settle_s
        if alias.previous is None or alias.champion == serving or not holders(table, alias.previous):
            until = now
        self._settles_at[alias.name] = until

    def _settle(self, now: float) -> None:
        assert self._told is not None
        self._settles_at = {name: at for name, at in self._settles_at.items() if at > now}
        self._next_at = min(self._settles_at.values(), default=math.inf)
        unsettled = {
            name: replace(alias, champion=alias.previous)
            for name in self._settles_at
            if (alias := self._told.aliases.get(name)) and alias.previous is not None
        }
        self.table = replace(self._told, aliases={**self._told.aliases, **unsettled}) if unsettled else self._told

    @property
    def ready_engines(self) -> int:
        """Engines that the table calls ready and that answer this process: the table may be older than their death."""
        table = self.table
        return sum(engine.ready and self._answers.get(engine.url, False) for engine in table.engines) if table else 0

    def probed(self, engine: str, answers: bool) -> None:
        """What the newest probe of the engine found; a silent one is chosen only where there is no other."""
        self._answers[engine] = answers

    def pick(
        self, engines: Sequence[str], now: float, avoid: Collection[str] = (), conversation: bytes | None = None
    ) -> str | None:
        """The engine with the fewest of our requests, healthy ones first; None when all are to be avoided.

        A conversation returns to the engine that has its prefix cached, while that one is not busier than the others:
        rendezvous hashing (Thaler and Ravishankar, 1998) with bounded loads (Mirrokni et al., 2018).
        """
        open_to_us = [url for url in engines if url not in avoid] if avoid else engines
        if len(open_to_us) <= 1:
            return open_to_us[0] if open_to_us else None
        sound = [url for url in open_to_us if not self._doubtful(url, now)] or open_to_us
        if conversation is not None:
            home = max(sound, key=lambda url: blake2b(url.encode(), key=conversation, digest_size=8).digest())
            if self._loads.get(home, 0) <= self._bound(sound):
                return home
        self._turn += 1
        count = len(sound)
        order = [sound[(self._turn + i) % count] for i in range(count)]
        return min(order, key=lambda url: self._loads.get(url, 0))

    def _bound(self, engines: Sequence[str]) -> float:
        return _SLACK + _UNBALANCE * sum(self._loads.get(url, 0) for url in engines) / len(engines)

    def _doubtful(self, engine: str, now: float) -> bool:
        return self._suspect_until.get(engine, 0.0) > now or not self._answers.get(engine, True)

    def entered(self, engine: str) -> None:
        self._loads[engine] = self._loads.get(engine, 0) + 1

    def left(self, engine: str) -> None:
        self._loads[engine] -= 1

    def suspect(self, engine: str, now: float) -> None:
        """The engine failed just now; prefer others for a moment."""
        self._suspect_until[engine] = now + _SUSPECT_S
