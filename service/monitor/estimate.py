"""How right replies probably are, from the model's confidence: calibrated on the reference's labelled requests.

Confidence-based performance estimation, with prediction-powered inference where the current window has a few labels
(Angelopoulos et al., "Prediction-powered inference", Science 382, 2023): they correct the estimate, and its interval
tells how far. Where requests lie beyond the reference and no label tells, their confidence is not believed.
"""

from __future__ import annotations

import math

import numpy as np
from sklearn.isotonic import IsotonicRegression

from service.core.drift import Quality, compare_quality
from service.monitor.features import Column, Features

_LEAST_CORRECTING = 10
_MOST_MARGIN = 0.15
"""An estimate whose 95% interval reaches farther to one side says too little to be one."""

OVERCONFIDENCE = 2.0
"""How often the expected loss counts that comes with requests beyond the reference: a model doubts itself too little on
topics that it was not taught. Measured on a domain and on intents that were held back; see docs/drift.md."""


def estimate_quality(reference: Features, current: Features, *, least: int, beyond: bool = False) -> Quality | None:
    """Expected mean scores of both windows; None where confidence is missing, never varies, or says too little now.

    With `least` labelled requests in the reference, a rising curve from confidence to score is fitted on them and its
    mean on the reference is theirs. Without, a reply's own probability stands for its score. `beyond`: more current
    requests than chance explains are unlike the reference.
    """
    before, after = reference.columns["confidence"], current.columns["confidence"]
    if np.unique(before[np.isfinite(before)]).size < 2:
        return None
    known = np.isfinite(before) & np.isfinite(reference.scores)
    if int(known.sum()) < least:
        return compare_quality(before.tolist(), after.tolist(), least=least)
    answered = np.isfinite(after)
    if int(answered.sum()) < max(1, least):
        return None
    expected = calibrated(reference, after)[answered]
    scores = current.scores[answered]
    right = float(reference.scores[known].mean())
    if int(np.isfinite(scores).sum()) >= _LEAST_CORRECTING:
        return _corrected(right, int(known.sum()), expected, scores)
    mean = float(expected.mean())
    if beyond and mean < right:
        mean = max(0.0, right - OVERCONFIDENCE * (right - mean))
    return Quality(right, int(known.sum()), mean, len(expected))


def calibrated(reference: Features, confidence: Column) -> Column:
    """The expected score of each reply, by the rising curve from confidence to score on the reference's labelled ones.

    NaN where there is no confidence. The reference needs at least one labelled reply with a confidence.
    """
    before = reference.columns["confidence"]
    known = np.isfinite(before) & np.isfinite(reference.scores)
    curve = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(before[known], reference.scores[known])
    expected = np.full(len(confidence), np.nan)
    answered = np.isfinite(confidence)
    if answered.any():
        expected[answered] = curve.predict(confidence[answered])
    return expected


def _corrected(right: float, known: int, expected: Column, scores: Column) -> Quality | None:
    """The estimate plus what the labelled replies were off by, resting on as many requests as its variance is worth."""
    told = np.isfinite(scores)
    off = scores[told] - expected[told]
    mean = min(1.0, max(0.0, float(expected.mean() + off.mean())))
    # One error more than was seen: a few labels that all agree are no proof of a variance of zero.
    variance = float(expected.var() / len(expected) + (off.var() + 1 / len(off)) / len(off))
    if 1.96 * math.sqrt(variance) > _MOST_MARGIN:
        return None
    worth = max(mean * (1 - mean), 0.01) / variance
    return Quality(right, known, mean, max(1, min(len(expected), round(worth))))
