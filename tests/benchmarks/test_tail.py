"""How much slower the slowest requests are while something runs, and how sure that is."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.loop.tail import BLOCK_S, Timed, tails


def span(seed: int, seconds: float, mean_s: float) -> list[Timed]:
    """Twenty requests a second of exponential latency; a fifth of the blocks is twice as slow."""
    rng = np.random.default_rng(seed)
    slow = rng.random(int(seconds / BLOCK_S) + 1) < 0.2
    return [(at, rng.exponential(mean_s * (1 + slow[int(at / BLOCK_S)]))) for at in np.arange(0.0, seconds, 0.05)]


def test_the_ratio_is_that_of_the_99th_percentiles() -> None:
    found = tails({"idle": [(at, 0.1) for at in range(100)], "training": [(at, 0.13) for at in range(50)]})
    assert found["training"].requests == 50
    assert found["training"].p99_s == pytest.approx(0.13)
    assert found["training"].ratio == found["training"].low == found["training"].high == pytest.approx(1.3)
    assert found["idle"].ratio == 1.0


def test_the_interval_holds_the_true_ratio_in_most_runs_and_not_a_far_one() -> None:
    rounds = 15
    holds = []
    for seed in range(rounds):
        found = tails({"idle": span(seed, 200, 0.1), "training": span(seed + 1000, 200, 0.15)})["training"]
        holds.append((found.low <= 1.5 <= found.high, found.low <= 3.0 <= found.high))
    assert sum(true for true, _ in holds) >= 0.8 * rounds
    assert not any(far for _, far in holds)
