"""Evidently on windows of 200 requests against the reference: its default tests of columns, and its embedding drift."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from evidently.legacy.calculations.stattests import ks_stat_test
from evidently.legacy.core import ColumnType
from evidently.legacy.metrics.data_drift.embedding_drift_methods import model

from benchmarks.drift.runs import LONGEST, SHARES, Where
from benchmarks.drift.streams import Part, Rng, World

WINDOW = 200
CLEAN_WINDOWS = 50


@dataclass(frozen=True, slots=True)
class Windows:
    """Statistics of windows, larger is stranger: -log10 of the smallest column's p, and the embedding classifier's AUC.

    `preset`: how many clean windows the preset calls drifted at its defaults (half of the columns at p < 0.05).
    """

    clean: tuple[tuple[float, float], ...]
    preset: int
    drifted: dict[float, tuple[tuple[float, float], ...]]


def windows(where: Where, seed: int) -> Windows:
    """The clean windows of one seed, and those from the drift on, by the novel share."""
    world = where.world(seed)
    told = [_statistics(world, _drawn(world, world.rng, 0.0)) for _ in range(CLEAN_WINDOWS)]
    clean, preset = tuple((p, auc) for p, auc, _ in told), sum(half for _, _, half in told)
    drifted = {
        share: tuple(_statistics(world, _drawn(world, world.rng, share))[:2] for _ in range(_longest(share)))
        for share in SHARES
    }
    return Windows(clean, preset, drifted)


def _longest(share: float) -> int:
    return LONGEST // WINDOW if share < 0.1 else 5


def _drawn(world: World, rng: Rng, share: float) -> Part:
    pool, n = world.pool, int(rng.binomial(WINDOW, share))
    known = pool.known.chosen(rng.integers(0, len(pool.known), WINDOW - n))
    novel = pool.novel.chosen(rng.integers(0, len(pool.novel), n))
    features = known.features
    columns = {
        name: np.concatenate([column, novel.features.columns[name]]) for name, column in features.columns.items()
    }
    joined = type(features)((), (), columns, np.empty(0))
    return Part(joined, np.vstack([known.vectors, novel.vectors]))


def _statistics(world: World, window: Part) -> tuple[float, float, bool]:
    smallest = []
    for name, column in world.reference.features.columns.items():
        if np.unique(column).size > 1:
            before, after = pd.Series(column), pd.Series(window.features.columns[name])
            smallest.append(ks_stat_test(before, after, ColumnType.Numerical, 0.05).drift_score)
    frames = [pd.DataFrame(part.vectors) for part in (window, world.reference)]
    auc, _, _ = model()(*frames)
    p = np.asarray(smallest)
    return -float(np.log10(max(float(p.min()), 1e-300))), float(auc), bool((p < 0.05).mean() >= 0.5)
