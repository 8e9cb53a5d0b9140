"""How large a detector's statistic gets without drift: resampled from the reference itself, at the window sizes in use.

Both windows are drawn from the reference with replacement, so that they differ by chance alone (a bootstrap of the
null). Beyond its 95% quantile a statistic is taken to fall off exponentially, at the rate that the draws show there:
that gives thresholds for chances far below one in the number of draws, and errs on the safe side, since the tails of
these distances are Gaussian, or Poisson for rare values, and so fall off faster.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

_TAIL = 0.05
_MAX_DRAWS = 4000
_MAX_SAMPLED = 4_000_000
_CHUNK = 250_000
_DEARER = 10
"""About so many requests are drawn one by one in the time of one support point's count."""
_LEAST_STD = 0.001
"""Evidently's own floor of the standard deviation that it divides by."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Null:
    """A statistic's tail without drift: 5% of its values lie beyond `start`, by `excess` on average."""

    start: float
    excess: float
    reference_n: int
    current_n: int

    def threshold(self, rate: float, current_n: int) -> float:
        """What the statistic of `current_n` requests exceeds with a chance of `rate` (below 5%).

        Another number than was drawn for (some lack the feature) scales it: a distance's spread goes with √(1/n + 1/m).
        """
        drawn = 1 / self.reference_n + 1 / self.current_n
        scale = math.sqrt((1 / self.reference_n + 1 / max(1, current_n)) / drawn)
        return scale * (self.start + self.excess * math.log(_TAIL / min(rate, _TAIL)))


def numeric_null(values: Floats, reference_n: int, current_n: int, rng: Generator) -> Null:
    """The null of Evidently's normed Wasserstein distance, for finite `values` of the reference.

    `reference_n`: as how many independent requests the values count, at most their number.
    """
    support, place = np.unique(values, return_inverse=True)
    gaps, found = np.diff(support), []
    for draws in _chunks(reference_n + current_n):
        ours = _counts(place, draws, reference_n, len(support), rng)
        theirs = _counts(place, draws, current_n, len(support), rng)
        apart = np.abs(np.cumsum(ours, 1) / reference_n - np.cumsum(theirs, 1) / current_n)[:, :-1]
        mean = ours @ support / reference_n
        std = np.sqrt(np.maximum(ours @ support**2 / reference_n - mean**2, 0.0))
        found.append(apart @ gaps / np.maximum(std, _LEAST_STD))
    return _fit(np.concatenate(found), reference_n, current_n)


def categorical_null(counts: NDArray[np.int64], current_n: int, rng: Generator) -> Null:
    """The null of Evidently's Jensen-Shannon distance, for the reference's `counts` by category."""
    n = int(counts.sum())
    # A category that the reference lacks may still come by chance (add-one smoothing spreads one request over them).
    shares = (counts + 1 / len(counts)) / (n + 1)
    draws = _draws(n + current_n)
    ours = rng.multinomial(n, shares, draws) / n
    theirs = rng.multinomial(current_n, shares, draws) / current_n
    middle = (ours + theirs) / 2
    divergence = (_relative_entropy(ours, middle) + _relative_entropy(theirs, middle)) / 2
    return _fit(np.sqrt(np.maximum(divergence, 0.0)), n, current_n)


def _fit(statistics: Floats, reference_n: int, current_n: int) -> Null:
    start = float(np.quantile(statistics, 1 - _TAIL))
    beyond = statistics[statistics > start]
    excess = float((beyond - start).mean()) if beyond.size else 0.0
    return Null(start, excess, reference_n, current_n)


def _counts(place: NDArray[np.intp], draws: int, size: int, bins: int, rng: Generator) -> NDArray[np.int64]:
    """How often each support point is drawn, shape [draws, bins]."""
    if bins * _DEARER < size:
        return rng.multinomial(size, np.bincount(place, minlength=bins) / len(place), draws)
    drawn = place[rng.integers(0, len(place), (draws, size))] + bins * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * bins).reshape(draws, bins)


def _draws(size: int) -> int:
    return max(500, min(_MAX_DRAWS, _MAX_SAMPLED // size))


def _chunks(size: int) -> list[int]:
    total, step = _draws(size), max(1, _CHUNK // size)
    return [min(step, total - start) for start in range(0, total, step)]


def _relative_entropy(left: Floats, right: Floats) -> Floats:
    ratio = np.divide(left, right, out=np.ones_like(left), where=left > 0)
    return np.asarray((left * np.log(ratio)).sum(1))
