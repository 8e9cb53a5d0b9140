"""The tail of clients' latency while something runs beside them, against that while nothing does, with its error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

IDLE = "idle"
QUANTILE = 0.99
BLOCK_S = 5.0
"""Requests that are slow together, since they shared a moment, are drawn together."""

DRAWS = 500


@dataclass(frozen=True, slots=True)
class Tail:
    """The 99th percentile of `requests` latencies in seconds, its ratio to that of idle, and its 95% interval."""

    requests: int
    p99_s: float
    ratio: float
    low: float
    high: float


Timed = tuple[float, float]
"""When a request was sent and how long it took, in seconds."""


def tails(spans: Mapping[str, Sequence[Timed]]) -> dict[str, Tail]:
    """Each span's tail beside that of the span named "idle".

    The interval is of a block bootstrap (Künsch, "The jackknife and the bootstrap for general stationary observations",
    Annals of Statistics 17, 1989): blocks of `BLOCK_S` seconds are drawn with replacement, in both spans.
    """
    rng = np.random.default_rng(0)
    idle = _drawn(spans[IDLE], rng)
    at_rest = _p99([took for _, took in spans[IDLE]])
    found = {}
    for name, span in spans.items():
        p99_s = _p99([took for _, took in span])
        ratios = _drawn(span, rng) / idle
        low, high = np.quantile(ratios, (0.025, 0.975))
        found[name] = Tail(len(span), p99_s, p99_s / at_rest, float(low), float(high))
    return found


def _p99(durations_s: Sequence[float]) -> float:
    return float(np.quantile(durations_s, QUANTILE))


def _drawn(span: Sequence[Timed], rng: np.random.Generator) -> np.ndarray:
    """`DRAWS` 99th percentiles of as many blocks as there are, drawn anew."""
    blocks = list(_blocks(span))
    return np.array(
        [
            np.quantile(
                np.concatenate([blocks[block] for block in rng.integers(len(blocks), size=len(blocks))]), QUANTILE
            )
            for _ in range(DRAWS)
        ]
    )


def _blocks(span: Sequence[Timed]) -> Iterator[list[float]]:
    first = min(sent_at for sent_at, _ in span)
    for _, block in groupby(sorted(span), key=lambda one: int((one[0] - first) / BLOCK_S)):
        yield [took for _, took in block]
