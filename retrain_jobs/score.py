"""What an evaluation says: scores by slice, the candidate paired with the champion on the same rows. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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


def paired(before: Sequence[float], candidate: Sequence[float], name: str, *, seed: int) -> dict[str, Any]:
    """Two systems' mean scores on the same rows, the one before called `name`; {"n": 0} without a row."""
    if not before:
        return {"n": 0}
    differences = [b - a for a, b in zip(before, candidate, strict=True)]
    low, high = bootstrap(differences, seed=seed)
    return {
        name: _mean(before),
        "candidate": _mean(candidate),
        "n": len(before),
        "delta": _mean(differences),
        "ci": [low, high],
    }


def forgetting(slice_: Mapping[str, Any]) -> dict[str, Any]:
    """What the candidate lost of what the champion could do: a slice of old traffic as `compare` returns it."""
    if not slice_["n"]:
        return {"n": 0}
    low, high = slice_["ci"]
    return {
        "n": slice_["n"],
        "lost": slice_["worse"],
        "gained": slice_["better"],
        "drop": -slice_["delta"],
        "ci": [-high, -low],
    }


def robustness(
    champion: Sequence[float], champion_slips: Sequence[float], candidate: Sequence[float],
    candidate_slips: Sequence[float], *, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """How much each system's mean score drops on the same rows with slips in them, with 95% intervals.

    `more` is by how much the candidate drops more than the champion does.
    """
    if not candidate:
        return {"n": 0}
    before = [a - b for a, b in zip(champion, champion_slips, strict=True)]
    after = [a - b for a, b in zip(candidate, candidate_slips, strict=True)]
    more = [b - a for a, b in zip(before, after, strict=True)]
    drops = {"champion": before, "candidate": after, "more": more}
    return {"n": len(candidate)} | {
        name: {"drop": _mean(values), "ci": list(bootstrap(values, seed=seed))} for name, values in drops.items()
    }


def metrics(targets: Sequence[str], answers: Sequence[Answer]) -> dict[str, float]:
    """Every metric that makes sense for these targets; macro-F1 only where they are classes. `n` must be positive."""
    replies = [answer.reply for answer in answers]
    found = {
        "exact_match": _mean([_score("exact", r, t) for r, t in zip(replies, targets, strict=True)]),
        "rouge_l": _mean([_score("rouge_l", r, t) for r, t in zip(replies, targets, strict=True)]),
        "chrf": _mean([_score("chrf", r, t) for r, t in zip(replies, targets, strict=True)]),
        "bleu": _mean([_score("bleu", r, t) for r, t in zip(replies, targets, strict=True)]),
        "perplexity": math.exp(min(_mean([answer.loss for answer in answers]), 50.0)),
        "confidence": _mean([answer.confidence for answer in answers]),
        "ece": calibration_error([a.confidence for a in answers], [a.score for a in answers]),
    }
    if are_classes(targets):
        found["macro_f1"] = macro_f1(targets, replies)
    return found


def are_classes(targets: Sequence[str]) -> bool:
    """Whether the targets repeat so often that they are names of classes, and no texts."""
    return bool(targets) and 2 * len(set(targets)) <= len(targets)


def macro_f1(targets: Sequence[str], replies: Sequence[str]) -> float:
    """The mean F1 over the classes that occur as targets."""
    pairs = list(zip(targets, (reply.strip() for reply in replies), strict=True))
    right = Counter(target for target, reply in pairs if target == reply)
    wanted, given = Counter(target for target, _ in pairs), Counter(reply for _, reply in pairs)
    return _mean([2 * right[c] / (wanted[c] + given[c]) for c in wanted])


def reliability(confidences: Sequence[float], scores: Sequence[float]) -> list[dict[str, float]]:
    """Mean confidence and mean score of each of ten equal bins that holds a row, with its rows `n`."""
    bins: dict[int, list[tuple[float, float]]] = {}
    for confidence, value in zip(confidences, scores, strict=True):
        bins.setdefault(min(BINS - 1, int(confidence * BINS)), []).append((confidence, value))
    return [
        {"confidence": _mean([c for c, _ in found]), "score": _mean([s for _, s in found]), "n": len(found)}
        for _, found in sorted(bins.items())
    ]


def calibration_error(confidences: Sequence[float], scores: Sequence[float]) -> float:
    """Expected calibration error over ten equal bins (Guo et al., ICML 2017)."""
    curve = reliability(confidences, scores)
    return sum(abs(point["confidence"] - point["score"]) * point["n"] for point in curve) / len(confidences)


def bootstrap(differences: Sequence[float], *, seed: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The 95% percentile interval of the mean difference; the same seed gives the same interval."""
    values, counts = np.unique(np.asarray(differences, dtype=float), return_counts=True)
    n = len(differences)
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples)
    means = np.sort(drawn @ values / n)
    return float(means[round(0.025 * (resamples - 1))]), float(means[round(0.975 * (resamples - 1))])


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
