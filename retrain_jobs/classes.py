"""Where the targets are classes: how each one fares, and which are taken for which. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from retrain_jobs.score import Answer, bootstrap

OTHER = "(none of the classes)"
"""Instead of a reply that is no class: it may be any text, and a record keeps none."""

MOST_CLASSES, MOST_PAIRS = 60, 40


def by_class(
    targets: Sequence[str], champion: Sequence[Answer], candidate: Sequence[Answer], *, seed: int
) -> list[dict[str, Any]]:
    """Both mean scores of each class with the difference and its 95% interval, the candidate's losses first."""
    rows: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for target, before, after in zip(targets, champion, candidate, strict=True):
        rows[target].append((before.score, after.score))
    found = []
    for name, scores in rows.items():
        n = len(scores)
        before, after = (sum(side) / n for side in zip(*scores, strict=True))
        ci = bootstrap([b - a for a, b in scores], seed=seed, resamples=200)
        found.append({"name": name, "n": n, "champion": before, "candidate": after, "ci": list(ci)})
    found.sort(key=lambda row: (row["candidate"] - row["champion"], row["candidate"], row["name"]))
    return found[:MOST_CLASSES]


def confusion(targets: Sequence[str], answers: Sequence[Answer]) -> list[list[Any]]:
    """[target, reply, times] of what was taken for something else, the most frequent first."""
    names = set(targets)
    wrong = Counter(
        (target, reply if reply in names else OTHER)
        for target, reply in zip(targets, (answer.reply.strip() for answer in answers), strict=True)
        if reply != target
    )
    ranked = sorted(wrong.items(), key=lambda entry: (-entry[1], entry[0]))
    return [[target, reply, n] for (target, reply), n in ranked[:MOST_PAIRS]]
