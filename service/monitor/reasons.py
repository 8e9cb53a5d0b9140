"""Why a window drifted, so that a person can act on it: the topics that are new, since when, and how right the replies
to them are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from service.monitor.change_point import mean_changed
from service.monitor.detectors import ESTIMATE, FEEDBACK, Detection
from service.monitor.estimate import OVERCONFIDENCE, calibrated
from service.monitor.features import Column, Features
from service.monitor.topics import Topic

_LEAST_LABELLED = 10
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The mean score (0..1) of some replies, with the half-width of its 95% interval, and what it rests on."""

    mean: float
    margin: float
    n: int
    is_estimate: bool

    def told(self) -> str:
        figure = f"accuracy {self.mean:.0%} ± {100 * self.margin:.0f}"
        return f"estimated {figure}" if self.is_estimate else f"{figure} ({self.n} labelled)"


@dataclass(frozen=True, slots=True)
class Explained:
    """Sentences, the most telling first; what the store keeps of the topics; when the drift began (Unix seconds)."""

    reasons: tuple[str, ...]
    topics: tuple[Mapping[str, Any], ...]
    since: float | None


def explain(
    topics: Sequence[Topic], reference: Features, current: Features, detection: Detection, times: Sequence[float], *,
    onset: float | None,
) -> Explained:  # fmt: skip
    """Tell of a drifted window.

    Args:
        times: when the current window's requests came, in order.
        onset: when this drift began, as far as earlier checks knew; a window that is new from its first request on
            cannot tell.
    """
    expected = _expected(reference, current)
    reasons, entries, began = [], [], []
    for topic in topics:
        since = times[topic.began]
        if topic.began == 0 and onset is not None:
            since = min(since, onset)
        accuracy = _accuracy(topic, current.scores, expected)
        reasons.append(_told(topic, accuracy, since, times[-1]))
        entries.append(_entry(topic, accuracy, since))
        began.append(since)
    if not began and (at := _moved(detection, reference, current)) is not None:
        began.append(times[at])
    earliest = min([*began, *([onset] if onset is not None else [])], default=None)
    return Explained(tuple(reasons), tuple(entries), earliest)


def clock_time(at: float, now: float) -> str:
    """The time of day (UTC), with its date where that is not within a day of `now`."""
    told = datetime.fromtimestamp(at, UTC)
    return told.strftime("%H:%M UTC") if abs(now - at) < _DAY_S else told.strftime("%Y-%m-%d %H:%M UTC")


def _told(topic: Topic, accuracy: Accuracy | None, since: float, now: float) -> str:
    # No example texts: reasons go into the audit log, and what is in there can never be erased.
    about = _listed([f"*{word}*" for word in topic.words]) if topic.words else "one kind of thing"
    before = "unseen in the reference" if topic.is_unseen else f"{topic.before:.0%} of the reference"
    right = f"; {accuracy.told()}" if accuracy is not None else ""
    sure = min(99.9, math.floor(1000 * (1 - topic.chance)) / 10)
    when = clock_time(since, now)
    return f"{topic.share:.0%} of requests since {when} are about {about}, {before}{right}; over {sure:.4g}% sure."


def _entry(topic: Topic, accuracy: Accuracy | None, since: float) -> Mapping[str, Any]:
    return {
        "words": list(topic.words),
        "examples": list(topic.examples),
        "share": topic.share,
        "share_before": topic.before,
        "unseen": topic.is_unseen,
        "since": since,
        "requests": int(topic.members.sum()),
        "chance": topic.chance,
        "accuracy": None if accuracy is None else accuracy.mean,
        "accuracy_margin": None if accuracy is None else accuracy.margin,
        "accuracy_is_estimate": None if accuracy is None else accuracy.is_estimate,
    }


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _accuracy(topic: Topic, scores: Column, expected: Column) -> Accuracy | None:
    """By labels where ten of the topic's requests have one, else by the model's calibrated confidence."""
    labelled = scores[topic.members & np.isfinite(scores)]
    if len(labelled) >= _LEAST_LABELLED:
        return _mean(labelled, is_estimate=False)
    guessed = expected[topic.members & np.isfinite(expected)]
    return _mean(guessed, is_estimate=True) if len(guessed) >= _LEAST_LABELLED else None


def _mean(values: Column, *, is_estimate: bool) -> Accuracy:
    """Agresti & Coull's interval (1998): honest for few requests and for means near 0 or 1."""
    n = len(values)
    mean = float(values.mean())
    centre = (mean * n + 2) / (n + 4)
    return Accuracy(mean, 1.96 * math.sqrt(centre * (1 - centre) / (n + 4)), n, is_estimate)


def _expected(reference: Features, current: Features) -> Column:
    """Each current reply's expected score, by the curve from confidence to score on the reference's labelled ones.

    What that curve expects to be lost counts twice: a model doubts itself too little on topics it was not taught.
    """
    before, after = reference.columns["confidence"], current.columns["confidence"]
    known = np.isfinite(before) & np.isfinite(reference.scores)
    if known.sum() < 2 * _LEAST_LABELLED:
        return after
    expected = calibrated(reference, after)
    right = float(reference.scores[known].mean())
    return np.clip(np.where(expected < right, right - OVERCONFIDENCE * (right - expected), expected), 0.0, 1.0)


def _moved(detection: Detection, reference: Features, current: Features) -> int | None:
    """Where the number that moved most began to, for drift without a topic of its own; None where no number can say."""
    columns = {
        FEEDBACK: (reference.scores, current.scores),
        ESTIMATE: (reference.columns["confidence"], current.columns["confidence"]),
        **{
            name: (detection.reference[name].to_numpy(), detection.current[name].to_numpy())
            for name in detection.current
        },
    }
    usable = [score for score in detection.scores if score.usable and score.detector in columns]
    for score in sorted(usable, key=lambda one: one.ratio, reverse=True):
        before, after = columns[score.detector]
        if before.dtype.kind == "f" and np.isfinite(before).any() and len(after):
            return mean_changed(after, float(np.nanmean(before)))
    return None
