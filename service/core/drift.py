"""What the statistics of two windows mean: detectors' scores and the quality behind them → a verdict with reasons.

Each check may raise a false alarm with the chance that the declared rate allows: with `fresh` new requests since the
last one it is `fresh / false_alarm_every`, so that one falsely alarming check is expected in `false_alarm_every`
requests, however much the windows overlap (expectations add up). The detectors of a check share that chance equally
(Bonferroni), which holds for detectors that move together as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

from service.core.window import Sizes

WINDOW_SHARE = 0.1
"""What the windows' detectors may take of the declared rate; single requests and labels have the rest."""

LABEL_SHARE = 0.2
"""What labels may take of that rest, where there are labels; single requests have what is left."""

_CONFIDENCE = 0.95
"""How sure the impact gate is of a loss of quality, one-sided."""

_MOST_RATE = 0.5


class Verdict(StrEnum):
    STABLE = "STABLE"
    INCONCLUSIVE = "INCONCLUSIVE"
    DRIFTED = "DRIFTED"


class Kind(StrEnum):
    """What moved: what is asked, what is answered, how right it is by labels, how right it is by confidence."""

    INPUT = "input"
    OUTPUT = "output"
    QUALITY = "quality"
    ESTIMATED_QUALITY = "estimated_quality"


@dataclass(frozen=True, slots=True)
class Score:
    """One detector's statistic and the value above which it alarms; `detail` says in words what moved."""

    detector: str
    kind: Kind
    score: float
    threshold: float
    detail: str

    @property
    def usable(self) -> bool:
        return math.isfinite(self.score) and math.isfinite(self.threshold) and self.threshold > 0

    @property
    def ratio(self) -> float:
        """Score over threshold; above 1 it alarms. NaN for a score that is not usable."""
        return self.score / self.threshold if self.usable else math.nan

    @property
    def alarm(self) -> bool:
        return self.usable and self.score > self.threshold


@dataclass(frozen=True, slots=True)
class Quality:
    """Mean scores (0..1) of the replies of both windows, and on how many requests each rests (at least 1)."""

    reference: float
    reference_n: int
    current: float
    current_n: int

    @property
    def drop(self) -> float:
        return self.reference - self.current

    def margin(self, confidence: float) -> float:
        """How far the drop may lie above the true one with one-sided `confidence`.

        Newcombe's hybrid of two Wilson intervals ("Interval estimation for the difference between independent
        proportions", 1998, method 11): sound for few requests and for means at 0 or 1, and on the safe side for scores
        between.
        """
        z = NormalDist().inv_cdf(confidence)
        low, _ = _wilson(self.reference, self.reference_n, z)
        _, high = _wilson(self.current, self.current_n, z)
        return math.hypot(self.reference - low, high - self.current)

    def least_drop(self) -> float:
        """The drop that is certain with 95% confidence; negative while there may be none."""
        return self.drop - self.margin(_CONFIDENCE)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of the quality: by labels where there are enough, else estimated from the model's confidence."""

    labelled: Quality | None = None
    estimated: Quality | None = None


@dataclass(frozen=True, slots=True)
class DriftPolicy:
    """What the operator declared; see docs/drift.md."""

    wanted: Sizes
    false_alarm_every: int
    min_labelled: int
    quality_drop: float
    require_quality_loss: bool


@dataclass(frozen=True, slots=True)
class Judgement:
    verdict: Verdict
    reasons: tuple[str, ...]
    retrain: bool = False


def check_rate(fresh: int, policy: DriftPolicy) -> float:
    """The chance of a false alarm that one check may take, all detectors together, after `fresh` new requests.

    No more than one window's worth of requests counts: those that no window held had no chance to alarm.
    """
    return min(_MOST_RATE, WINDOW_SHARE * min(max(1, fresh), policy.wanted.current) / policy.false_alarm_every)


def detector_rate(overall: float, detectors: int) -> float:
    """One detector's part of a check's chance of a false alarm."""
    return overall / max(1, detectors)


def compare_quality(reference: Sequence[float], current: Sequence[float], *, least: int) -> Quality | None:
    """The quality of both windows from their scores (0..1); None when fewer than `least` of either are numbers."""
    before = [score for score in reference if math.isfinite(score)]
    after = [score for score in current if math.isfinite(score)]
    if min(len(before), len(after)) < max(1, least):
        return None
    return Quality(math.fsum(before) / len(before), len(before), math.fsum(after) / len(after), len(after))


def quality_score(detector: str, kind: Kind, quality: Quality, rate: float) -> Score:
    """A loss of quality as a detector: it alarms when the drop exceeds what chance explains, but for `rate`."""
    return Score(detector, kind, quality.drop, quality.margin(1.0 - rate), _told(kind, quality))


def judge(scores: Sequence[Score], evidence: Evidence, sizes: Sizes, policy: DriftPolicy) -> Judgement:
    """DRIFTED when a detector alarms, be the current window full or not; `retrain` when that also costs quality,
    or when the policy asks for no loss.

    The first reason says most: the loss where there is a credible one, else the detector farthest beyond its threshold.
    """
    lack = sizes.lack(policy.wanted)
    early = sizes.reference >= policy.wanted.reference and any(score.alarm for score in scores)
    if lack is not None and not early:
        return Judgement(Verdict.INCONCLUSIVE, (lack,))
    usable = [score for score in scores if score.usable]
    if not usable:
        return Judgement(Verdict.INCONCLUSIVE, ("No feature of these windows varies, so there is nothing to compare.",))
    alarms = sorted((score for score in usable if score.alarm), key=lambda score: score.ratio, reverse=True)
    if not alarms:
        nearest = max(usable, key=lambda score: score.ratio)
        told = f"None of {len(usable)} detectors alarms; the nearest is {nearest.detector}"
        return Judgement(Verdict.STABLE, (f"{told} at {max(0.0, nearest.ratio):.0%} of its threshold.",))
    moved = [score.detail for score in alarms if score.kind in (Kind.INPUT, Kind.OUTPUT)]
    lost, impact = _impact(evidence, policy)
    reasons = [impact, *moved] if lost or not moved else [*moved, impact]
    return Judgement(Verdict.DRIFTED, tuple(reasons), lost or not policy.require_quality_loss)


def _impact(evidence: Evidence, policy: DriftPolicy) -> tuple[bool, str]:
    """Whether a loss of quality beyond the policy's is credible, and the sentence that says so."""
    kind, quality = Kind.QUALITY, evidence.labelled
    if quality is None:
        kind, quality = Kind.ESTIMATED_QUALITY, evidence.estimated
    if quality is None:
        return False, f"What it costs is unknown: fewer than {policy.min_labelled} labelled requests and no confidence."
    least, told = quality.least_drop(), _told(kind, quality)
    if least > policy.quality_drop:
        return True, f"{told} A loss of at least {least:.1%} is {_CONFIDENCE:.0%} sure."
    return False, f"{told} A loss of more than {policy.quality_drop:.1%} is not credible."


def _told(kind: Kind, quality: Quality) -> str:
    verb = "fell" if quality.drop > 0 else "went"
    if kind is Kind.QUALITY:
        what, requests = "Quality", "labelled requests"
    else:
        what, requests = "Quality, estimated from the model's confidence,", "requests"
    return f"{what} {verb} from {quality.reference:.1%} to {quality.current:.1%} ({quality.current_n} {requests})."


def _wilson(mean: float, n: int, z: float) -> tuple[float, float]:
    """Bounds of a proportion (Wilson, 1927), corrected for continuity: the plain ones are too narrow far out."""
    centre, scale, spread = 2 * n * mean + z * z, 2 * (n + z * z), 4 * mean
    below = z * math.sqrt(max(0.0, z * z - 2 - 1 / n + spread * (n * (1 - mean) + 1)))
    above = z * math.sqrt(max(0.0, z * z + 2 - 1 / n + spread * (n * (1 - mean) - 1)))
    low, high = (centre - 1 - below) / scale, (centre + 1 + above) / scale
    return max(0.0, min(mean, low)), min(1.0, max(mean, high))
