"""Whose log-probabilities are asked of the engine: they cost it time, and drift needs only a sample of them."""

from __future__ import annotations


class ConfidenceBudget:
    """So many requests a second, whichever come first; what a quiet second leaves may come at once in the next."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._most = max(1.0, per_s) if per_s else 0.0
        self._left = self._most
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Whether the request that came at `now` (Unix seconds) is one of them."""
        if now > self._at:
            self._left = min(self._most, self._left + (now - self._at) * self._per_s)
            self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
