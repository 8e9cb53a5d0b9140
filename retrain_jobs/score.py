"""What an evaluation says: scores by slice, the candidate paired with the champion on the same rows. Pure."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.core.scoring import score

RESAMPLES = 1000
BINS = 10


@dataclass(frozen=True, slots=True)
class Answer:
    """One system's reply to one row. `confidence` is a probability (0..1); `loss` the target's, nats a token."""

    reply: str
    score: float
    confidence: float
    loss: float


def compare(
    targets: Sequence[str], champion: Sequence[Answer], candidate: Sequence[Answer], *, seed: int
) -> dict[str, Any]:
    """Both systems' mean scores on one slice, the difference with its 95% interval, and what lies behind them.

    The same system on both sides gives a difference of exactly 0. An empty slice has n = 0 and scores of 0.
    """
    n = len(targets)
    if n == 0:
        return {"champion": 0.0, "candidate": 0.0, "n": 0}
    differences = [b.score - a.score for a, b in zip(champion, candidate, strict=True)]
    low, high = bootstrap(differences, seed=seed)
    return {
        "champion": _mean([a.score for a in champion]),
        "candidate": _mean([b.score for b in candidate]),
        "n": n,
        "delta": _mean(differences),
        "ci": [low, high],
        "better": sum(d > 0 for d in differences),
        "worse": sum(d < 0 for d in differences),
        "p": sign_test(sum(d > 0 for d in differences), sum(d < 0 for d in differences)),
        "metrics": {"champion": metrics(targets, champion), "candidate": metrics(targets, candidate)},
    }


def metrics(targets: Sequence[str], answers: Sequence[Answer]) -> dict[str, float]:
    """Every metric that makes sense for these targets; macro-F1 only where they are classes. `n` must be positive."""
    replies = [answer.reply for answer in answers]
    found = {
        "exact_match": _mean([_score("exact", r, t) for r, t in zip(replies, targets, strict=True)]),
        "rouge_l": _mean([_score("rouge_l", r, t) for r, t in zip(replies, targets, strict=True)]),
        "chrf": _mean([_score("chrf", r, t) for r, t in zip(replies, targets, strict=True)]),
        "perplexity": math.exp(min(_mean([answer.loss for answer in answers]), 50.0)),
        "confidence": _mean([answer.confidence for answer in answers]),
        "ece": calibration_error([a.confidence for a in answers], [a.score for a in answers]),
    }
    if 2 * len(set(targets)) <= len(targets):
        found["macro_f1"] = macro_f1(targets, replies)
    return found


def macro_f1(targets: Sequence[str], replies: Sequence[str]) -> float:
    """The mean F1 over the classes that occur as targets."""
    pairs = list(zip(targets, (reply.strip() for reply in replies), strict=True))
    right = Counter(target for target, reply in pairs if target == reply)
    wanted, given = Counter(target for target, _ in pairs), Counter(reply for _, reply in pairs)
    return _mean([2 * right[c] / (wanted[c] + given[c]) for c in wanted])


def calibration_error(confidences: Sequence[float], scores: Sequence[float]) -> float:
    """Expected calibration error over ten equal bins (Guo et al., ICML 2017)."""
    bins: dict[int, list[tuple[float, float]]] = {}
    for confidence, value in zip(confidences, scores, strict=True):
        bins.setdefault(min(BINS - 1, int(confidence * BINS)), []).append((confidence, value))
    return sum(abs(sum(c - s for c, s in found)) for found in bins.values()) / len(confidences)


def bootstrap(differences: Sequence[float], *, seed: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The 95% percentile interval of the mean difference; the same seed gives the same interval."""
    rng = random.Random(seed)
    values, counts = zip(*sorted(Counter(differences).items()), strict=True)
    n = len(differences)
    means = sorted(sum(rng.choices(values, counts, k=n)) / n for _ in range(resamples))
    return means[round(0.025 * (resamples - 1))], means[round(0.975 * (resamples - 1))]


def sign_test(better: int, worse: int) -> float:
    """Two-sided exact sign test over the rows on which the two differ; for 0/1 scores it is McNemar's exact test."""
    n = better + worse
    tail = sum(math.comb(n, k) for k in range(min(better, worse) + 1)) / (1 << n)
    return min(1.0, 2 * tail)


def summary(slices: Mapping[str, Mapping[str, Any]]) -> str:
    """One line for a person: each slice's scores."""
    told = [f"{name} {s['champion']:.1%} → {s['candidate']:.1%} (n={s['n']})" for name, s in slices.items() if s["n"]]
    return ", ".join(told)


def _score(kind: str, reply: str, target: str) -> float:
    return score(kind, reply, target, None) or 0.0


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
