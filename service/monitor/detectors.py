"""A current window's statistics against its reference, by Evidently, with thresholds calibrated on the reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from evidently.legacy.calculations.stattests import jensenshannon_stat_test, wasserstein_stat_test
from evidently.legacy.core import ColumnType

from service.core.drift import Evidence, Kind, Score, detector_rate, quality_score
from service.monitor.calibration import Null, categorical_null, numeric_null
from service.monitor.embedders import Vectors
from service.monitor.features import Column, Features
from service.monitor.neighbours import INDEPENDENT_SHARE, Neighbours
from service.monitor.surfaces import kind_of
from service.monitor.wording import embedding_moved, mean_moved, reply_moved

EMBEDDING = "embedding"
REPLY = "reply"
FEEDBACK = "feedback_score"
ESTIMATE = "estimated_quality"
OTHER = "(other)"
_MOST_REPLIES = 20
_LEAST_VALUES = 20
_LEAST_SHARE = 0.5
_LEAST_VARYING = 0.05
"""A value that is rarer in the reference says too little about how often it comes by chance."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a column is cut, so that a single extreme request is no drift."""

    low: float
    high: float

    def cut(self, values: Column) -> Column:
        return np.asarray(np.clip(values, self.low, self.high))


@dataclass(frozen=True, slots=True)
class Numeric:
    """A numeric column of the reference, cut, with its null."""

    kind: Kind
    bounds: Bounds
    reference: Column
    null: Null


@dataclass(frozen=True, slots=True)
class Replies:
    """The reference's frequent replies. They are named by one half of it and counted in the other: named and counted on
    the same requests, they would look more frequent than they are, and every window after it less so."""

    frequent: frozenset[str]
    reference: tuple[str, ...]
    null: Null

    def label(self, replies: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(reply if reply in self.frequent else OTHER for reply in replies)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What does not change while the reference stays: its columns, neighbours and nulls."""

    numeric: Mapping[str, Numeric]
    replies: Replies | None
    neighbours: Neighbours | None


@dataclass(frozen=True, slots=True)
class Detection:
    """The scores, and both windows as the detectors saw them: one column a detector, by its name."""

    scores: tuple[Score, ...]
    reference: pd.DataFrame
    current: pd.DataFrame


def calibrate(reference: Features, neighbours: Neighbours | None, current_size: int, *, seed: int) -> Calibration:
    """Prepare the detectors that this reference supports: features that it lacks, or that do not vary, have none."""
    rng = np.random.default_rng(seed)
    numeric = {
        name: _numeric(kind_of(name), values, 1.0, current_size, rng) for name, values in reference.columns.items()
    }  # fmt: skip
    if neighbours is not None:
        numeric[EMBEDDING] = _numeric(Kind.INPUT, neighbours.within(), INDEPENDENT_SHARE, current_size, rng)
    supported = {name: column for name, column in numeric.items() if column is not None}
    return Calibration(supported, _replies(reference.replies, current_size, rng), neighbours)


def detect(
    calibration: Calibration, current: Features, vectors: Vectors | None, evidence: Evidence, overall_rate: float
) -> Detection:
    """Score the current window; together the detectors alarm by chance at `overall_rate` at most."""
    values = dict(current.columns)
    if calibration.neighbours is not None and vectors is not None:
        values[EMBEDDING] = calibration.neighbours.distance(vectors)
    values = {name: found for name, found in values.items() if name in calibration.numeric and _enough(found)}
    replies = calibration.replies if len(current) >= _LEAST_VALUES else None
    qualities = [
        (name, kind, quality)
        for name, kind, quality in (
            (FEEDBACK, Kind.QUALITY, evidence.labelled),
            (ESTIMATE, Kind.ESTIMATED_QUALITY, evidence.estimated),
        )
        if quality is not None
    ]
    rate = detector_rate(overall_rate, len(values) + (replies is not None) + len(qualities))
    scores = [quality_score(name, kind, quality, rate) for name, kind, quality in qualities]
    before, after = {}, {}
    for name, found in values.items():
        column = calibration.numeric[name]
        before[name], after[name] = pd.Series(column.reference), pd.Series(column.bounds.cut(found))
        if name == EMBEDDING:
            told = embedding_moved(column.reference, found)
        else:
            told = mean_moved(name, column.reference, after[name].to_numpy())
        scores.append(_score_numeric(name, column, before[name], after[name], rate, told))
    if replies is not None:
        labels = replies.label(current.replies)
        before[REPLY], after[REPLY] = pd.Series(replies.reference), pd.Series(labels)
        told = reply_moved(replies.reference, labels, OTHER)
        scores.append(_score_replies(replies, before[REPLY], after[REPLY], rate, told))
    return Detection(tuple(scores), pd.DataFrame(before), pd.DataFrame(after))


def _score_numeric(name: str, column: Numeric, before: pd.Series, after: pd.Series, rate: float, told: str) -> Score:
    before, after = before[np.isfinite(before)], after[np.isfinite(after)]
    threshold = column.null.threshold(rate, len(after))
    tested = wasserstein_stat_test(before, after, ColumnType.Numerical, threshold)
    return Score(name, column.kind, float(tested.drift_score), threshold, told)


def _score_replies(replies: Replies, before: pd.Series, after: pd.Series, rate: float, told: str) -> Score:
    threshold = replies.null.threshold(rate, len(after))
    tested = jensenshannon_stat_test(before, after, ColumnType.Categorical, threshold)
    return Score(REPLY, Kind.OUTPUT, float(tested.drift_score), threshold, told)


def _numeric(
    kind: Kind, values: Column, independent_share: float, current_size: int, rng: np.random.Generator
) -> Numeric | None:
    finite = values[np.isfinite(values)]
    if not _enough(values) or not _varies(finite):
        return None
    low, high = np.quantile(finite, (0.01, 0.99))
    room = float(np.clip(finite, low, high).std()) / 4
    bounds = Bounds(float(low - room), float(high + room))
    null = numeric_null(bounds.cut(finite), int(independent_share * len(finite)), current_size, rng)
    return Numeric(kind, bounds, bounds.cut(values), null) if null.start > 0 else None


def _replies(replies: tuple[str, ...], current_size: int, rng: np.random.Generator) -> Replies | None:
    naming, counting = replies[::2], replies[1::2]
    frequent = frozenset(reply for reply, n in Counter(naming).most_common(_MOST_REPLIES) if n > 1)
    labels = tuple(reply if reply in frequent else OTHER for reply in counting)
    counts = Counter(labels)
    if len(labels) < _LEAST_VALUES or len(counts) < 2:
        return None
    categories = [counts[name] for name in sorted({*frequent, OTHER})]
    return Replies(frequent, labels, categorical_null(np.asarray(categories, np.int64), current_size, rng))


def _enough(values: Column) -> bool:
    finite = int(np.isfinite(values).sum())
    return finite >= _LEAST_VALUES and finite >= _LEAST_SHARE * len(values)


def _varies(finite: Column) -> bool:
    _, counts = np.unique(finite, return_counts=True)
    return bool(counts.max() <= (1 - _LEAST_VARYING) * len(finite))
