"""Streams drawn from a pool: a fresh reference and fresh requests for every seed, measured once and looked up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift.answered import Answered, labelled
from benchmarks.drift.pool import Pool, pools
from service.core.season import Season
from service.monitor.embedders import Vectors, build_embedder
from service.monitor.features import Features, measure
from service.monitor.neighbours import neighbours_of
from service.monitor.stream import Stream, losses
from service.settings import Settings

REFERENCE = 500
DECLARED = 10_000
LEAST_LABELLED = 20

T = TypeVar("T")
Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Part:
    """Measured requests of a pool, all known or all novel."""

    features: Features
    vectors: Vectors

    def __len__(self) -> int:
        return len(self.features)

    def chosen(self, rows: NDArray[np.int64], *, told: NDArray[np.bool_] | None = None) -> Part:
        """These requests; with a label only where `told` is true."""
        found = self.features
        scores = found.scores[rows]
        return Part(
            Features(
                tuple(found.prompts[i] for i in rows),
                tuple(found.replies[i] for i in rows),
                {name: column[rows] for name, column in found.columns.items()},
                scores if told is None else np.where(told, scores, np.nan),
            ),
            self.vectors[rows],
        )


@dataclass(frozen=True, slots=True)
class Measured:
    name: str
    known: Part
    novel: Part


@lru_cache
def measured(cache: Path, data: Path) -> dict[str, Measured]:
    """Both pools with their features and the base model's own embeddings."""
    return {pool.name: _measured(pool) for pool in pools(cache, data)}


def _measured(pool: Pool) -> Measured:
    with TemporaryDirectory() as folder:
        embedder = build_embedder(Settings(model=str(pool.model), state_dir=Path(folder)))
        if embedder is None:
            raise SystemExit(f"error: {pool.model} has no embeddings that can be read")
        parts = []
        for answered in (pool.known, pool.novel):
            features = measure([labelled(i, one) for i, one in enumerate(answered)], "exact", None)
            parts.append(Part(features, embedder.embed(features.prompts)))
    return Measured(pool.name, parts[0], parts[1])


class World:
    """One seed: a reference of a pool, a stream against it, and what the signals say of all that may come."""

    def __init__(self, pool: Measured, seed: int, *, coverage: float = 0.1, every: float = DECLARED) -> None:
        self.rng = np.random.default_rng(seed)
        self.pool = pool
        self.coverage = coverage
        self.chosen = self.rng.integers(0, len(pool.known), REFERENCE)
        self.reference = pool.known.chosen(self.chosen, told=self.rng.random(REFERENCE) < coverage)
        self.every = every
        self.stream = self.fresh()
        self.known = self.stream.signals.measure(pool.known.features, pool.known.vectors)
        self.novel = self.stream.signals.measure(pool.novel.features, pool.novel.vectors)
        self.known_losses, self.novel_losses = losses(pool.known.features), losses(pool.novel.features)

    def fresh(self) -> Stream:
        rows = [labelled(i, Answered("", "", False, "", 0.0, 0, 0)) for i in range(REFERENCE)]
        return Stream(
            rows, self.reference.features, neighbours_of(self.reference.vectors),
            every=self.every, least=LEAST_LABELLED, season=Season.NONE,
        )  # fmt: skip

    def step(self, n: int, share: float = 0.0, *, wrong: float = 0.0) -> None:
        """`n` more requests, a `share` of them novel; `wrong`: how many right answers to known ones have changed."""
        known = self.rng.integers(0, len(self.known), n)
        rows, lost = self.known[known], self.known_losses[known]
        if wrong:
            changed = (self.rng.random(n) < wrong) & (lost[:, 0] < 1)
            confidence = np.nan_to_num(self.pool.known.features.columns["confidence"][known], nan=0.5)
            lost = np.where(changed[:, None], np.column_stack([np.ones(n), 1.0 + confidence]), lost)
        if share:
            other = self.rng.integers(0, len(self.novel), n)
            novel = (self.rng.random(n) < share)[:, None]
            rows, lost = np.where(novel, self.novel[other], rows), np.where(novel, self.novel_losses[other], lost)
        if self.stream.requests is not None:
            self.stream.requests.take(rows)
        told = self.rng.random(n) < self.coverage
        if self.stream.labels is not None and told.any():
            self.stream.labels.take(lost[told])

    @property
    def alarm(self) -> bool:
        found = (self.stream.requests, self.stream.labels)
        return any(one.alarm for one in found if one is not None)


def side_by_side(work: Callable[[int], T], seeds: Iterable[int], workers: int) -> Iterator[T]:
    with ProcessPoolExecutor(workers) as executor:
        yield from executor.map(work, seeds, chunksize=2)
