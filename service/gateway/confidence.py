"""Whose log-probabilities are asked of the engine: they cost it time, and drift needs only a sample of them."""

from __future__ import annotations

_FEW = 4
_SHARE = 0.125
"""Of a gateway's open requests; the engine has to tell each of their tokens in words."""


class ConfidenceBudget:
    """So many requests a second, whichever come first; what a quiet second leaves may come at once in the next.

    Of many at a time no more than an eighth: a busy engine would lose more by it than drift would gain.
    """

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._most = max(1.0, per_s) if per_s else 0.0
        self._left = self._most
        self._at = 0.0
        self._running = 0

    def take(self, now: float, open_requests: int) -> bool:
        """Whether the request that came at `now` (Unix seconds) is one of them; it is until `leave`."""
        if now > self._at:
            self._left = min(self._most, self._left + (now - self._at) * self._per_s)
            self._at = now
        if self._left < 1.0 or self._running >= max(_FEW, _SHARE * open_requests):
            return False
        self._left -= 1.0
        self._running += 1
        return True

    def leave(self) -> None:
        """One of them is over."""
        self._running -= 1
