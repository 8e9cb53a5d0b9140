"""Bets against "this request is like the reference": what a value beside reference values is worth as evidence.

A request's rank among n exchangeable values is uniform, so a bet with density f over [0, 1] pays 1 on average while
nothing has changed, whatever the values' distribution: a conformal e-value (Vovk, Gammerman and Shafer, "Algorithmic
Learning in a Random World", 2nd edition 2022, chapter 8). Where values are equal the bet's mean over the tied ranks
is paid, which pays 1 on average too and needs no randomness. A bet on a value's size pays in proportion to a function
of it, over that function's mean among the n values and its own: on average 1 as well (Vovk, "Cross-conformal
e-prediction", 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bet:
    """A share of requests has moved to the strange end, where a rank p then has the density `power` * p^(power - 1)."""

    share: float
    power: float


@dataclass(frozen=True, slots=True)
class Tilt:
    """A share of requests has moved so that a value v, a log density ratio, is exp(`power` * v) times as frequent."""

    share: float
    power: float


TAIL = (Bet(0.12, 0.25), Bet(0.25, 0.65), Bet(0.7, 0.5), Bet(0.9, 0.25))
"""For signals in which a new topic stands out: a few requests far out, up to all of them, more or less clearly."""

TOPIC = (Tilt(0.06, 1.0), Tilt(0.12, 1.0), Tilt(0.2, 0.4), Tilt(0.3, 0.8), Tilt(0.5, 1.0), Tilt(0.9, 1.0))
"""For log density ratios: the same."""

FAR = (Bet(0.12, 0.1), Bet(0.35, 0.12))
"""For some of them so far out that hardly any was before."""

SHIFT = (Bet(0.1, 0.06), Bet(1.0, 0.45), Bet(1.0, 0.75))
"""For signals that drift as a whole, such as lengths."""

LOSS = (Bet(1.0, 0.12), Bet(1.0, 0.35), Bet(1.0, 0.6), Bet(1.0, 0.8))
"""For scores: with an error rate e, the power k stands for an error rate of e^k."""


def payoffs(above: Floats, upto: Floats, n: Floats, shares: Floats, powers: Floats) -> Floats:
    """What bets pay for values among `n` others, `above` of which are stranger and `upto` at least as strange.

    All arrays broadcast; every payoff is positive, and its mean over all n + 1 ranks is 1.
    """
    low, high = above / (n + 1), (upto + 1) / (n + 1)
    return 1.0 - shares + shares * (high**powers - low**powers) / (high - low)


def tilted(values: Floats, total: Floats, n: Floats, shares: Floats, powers: Floats) -> Floats:
    """What tilts pay for `values` beside `n` others; `total`: log of the sum of exp(power * value) over those.

    All arrays broadcast; every payoff is positive, and its mean over all n + 1 values is 1.
    """
    size = powers * values
    return np.asarray(1.0 - shares + shares * (n + 1) * np.exp(size - np.logaddexp(total, size)))
