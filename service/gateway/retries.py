"""A budget for second attempts: a share of the traffic, so that retries cannot turn a failing engine into a storm."""

from __future__ import annotations

RATIO = 0.2
"""Retries for each request: the budget of Finagle (Twitter) and Linkerd."""

_RESERVE = 10.0
"""So that a quiet service may retry too; also what a fresh process begins with."""

_CAP = 100.0


class RetryBudget:
    """Each request pays in a fifth of a retry; what is unspent is kept up to a cap."""

    def __init__(self) -> None:
        self._balance = _RESERVE

    def earn(self) -> None:
        self._balance = min(_CAP, self._balance + RATIO)

    def spend(self) -> bool:
        """Take one retry; False when the traffic has not earned it."""
        if self._balance < 1.0:
            return False
        self._balance -= 1.0
        return True
