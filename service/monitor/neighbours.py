"""How far a request lies from the reference in the embedding space: one number a request, larger for unseen topics."""

from __future__ import annotations

import numpy as np

from service.monitor.embedders import Vectors
from service.monitor.features import Column

INDEPENDENT_SHARE = 0.6
"""As how many independent requests the reference's distances to itself count: they share their neighbours. Measured as
the variance of their mean over what independence would give, which is 1.0 to 1.7 on CLINC150 and on made text."""

_NEAREST = 3
_CELLS = 1_280_000
"""Pairs that are compared at once: 5 MiB, which stay in the processor's cache."""
_LEAST_LENGTH = 1e-9


class Neighbours:
    """Mean cosine distance to the three nearest reference requests, around the reference's own centre.

    Without centring, what texts share hides what sets them apart: on CLINC150 with co-occurrence embeddings it takes
    the area under the ROC curve of one new-domain request from 0.80 to 0.86; plain Euclidean distance has 0.61.
    """

    def __init__(self, reference: Vectors) -> None:
        """`reference`: shape [n, d], n > 1."""
        known = np.nan_to_num(reference)
        self._centre = known.mean(0)
        self._missing = ~np.isfinite(reference).all(1)
        self._unit, self._length = self._directions(known)
        self._within: Column | None = None

    def within(self) -> Column:
        """Of each reference request to the others. Without itself, or the reference would look closer than it is."""
        if self._within is None:
            self._within = self._nearest(self._unit, self._length / np.float32(len(self._unit) - 1))
            self._within[self._missing] = np.nan
        return self._within

    def distance(self, vectors: Vectors) -> Column:
        """Of other requests (same embedder), shape [n]; NaN for a vector that holds values that are not numbers."""
        unit, _ = self._directions(np.nan_to_num(vectors))
        found = self._nearest(unit, None)
        found[~np.isfinite(vectors).all(1)] = np.nan
        return found

    @property
    def known(self) -> Vectors:
        """The reference's requests as directions from its centre, shape [n, d]; NaN where a vector had no numbers."""
        found = self._unit.copy()
        found[self._missing] = np.nan
        return found

    def directions(self, vectors: Vectors) -> Vectors:
        """Other requests (same embedder) as directions from the same centre."""
        found, _ = self._directions(np.nan_to_num(vectors))
        found[~np.isfinite(vectors).all(1)] = np.nan
        return found

    def _directions(self, vectors: Vectors) -> tuple[Vectors, Vectors]:
        centred = vectors - self._centre
        length = np.maximum(np.linalg.norm(centred, axis=1), _LEAST_LENGTH)
        return np.asarray(centred / length[:, None], np.float32), np.asarray(length, np.float32)

    def _nearest(self, unit: Vectors, pull: Vectors | None) -> Column:
        """Each request is compared with all reference requests but one, so that both windows are measured alike.

        `pull`: how far a request of the reference drew the centre towards itself, away from the others; taken back to
        first order.
        """
        n = len(self._unit)
        k = min(_NEAREST, n - 1)
        total = np.zeros(len(unit))
        chunk = max(1, _CELLS // n)
        likenesses, scratch = np.empty((2, min(chunk, len(unit)), n), np.float32)
        for start in range(0, len(unit), chunk):
            part = unit[start : start + chunk]
            rows = np.arange(len(part))
            likeness = np.matmul(part, self._unit.T, out=likenesses[: len(part)])
            if pull is not None:
                likeness += _drawn(likeness, pull[start : start + chunk], self._length, out=scratch[: len(part)])
            likeness[rows, (start + rows) % n] = -np.inf
            for _ in range(k):
                nearest = likeness.argmax(1)
                total[start + rows] += likeness[rows, nearest]
                likeness[rows, nearest] = -np.inf
        return 1.0 - total / k


def _drawn(likeness: Vectors, pull: Vectors, length: Vectors, *, out: Vectors) -> Vectors:
    """(1 - likeness^2) * pull / length, without an array of that size anew for each step."""
    np.multiply(likeness, likeness, out=out)
    np.subtract(1.0, out, out=out)
    out *= pull[:, None]
    out /= length
    return out


def neighbours_of(vectors: Vectors | None) -> Neighbours | None:
    """None where there are no vectors, or too few to have neighbours."""
    return Neighbours(vectors) if vectors is not None and len(vectors) > 1 else None
