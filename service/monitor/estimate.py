"""How right replies probably are, from the model's confidence: calibrated on the reference's labelled requests."""

from __future__ import annotations

import numpy as np
from sklearn.isotonic import IsotonicRegression

from service.core.drift import Quality, compare_quality
from service.monitor.features import Features


def estimate_quality(reference: Features, current: Features, *, least: int) -> Quality | None:
    """Expected mean scores of both windows; None where confidence is missing, or says nothing as it never varies.

    With `least` labelled requests in the reference, a rising curve from confidence to score is fitted on them and its
    mean on the reference is theirs. Without, a reply's own probability stands for its score.
    """
    before, after = reference.columns["confidence"], current.columns["confidence"]
    if np.unique(before[np.isfinite(before)]).size < 2:
        return None
    known = np.isfinite(before) & np.isfinite(reference.scores)
    if int(known.sum()) < least:
        return compare_quality(before.tolist(), after.tolist(), least=least)
    curve = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(before[known], reference.scores[known])
    expected = curve.predict(after[np.isfinite(after)]) if np.isfinite(after).any() else np.empty(0)
    return compare_quality(reference.scores[known].tolist(), np.asarray(expected).tolist(), least=least)
