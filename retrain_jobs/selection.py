"""Which requests got feedback is not random: it is told by comparing them with all requests of the time. Pure."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from retrain_jobs.examples import turns
from retrain_jobs.topics import topics
from service.core.records import Labelled

_MOST_ROWS = 10
_OTHERS = "(others)"
_SHUFFLES = 200


def selection(rows: Sequence[Labelled], *, seed: int = 0) -> dict[str, Any]:
    """Of all requests of a time: how many are labelled, by reply, confidence and topic.

    `distance` is the total variation (0..1) between the labelled requests and all, `chance` what as many picked at
    random stay below 19 times of 20: a larger distance is a choice that people made.
    """
    if not rows:
        return {"requests": 0, "labelled": 0}
    picked = [row.feedback is not None for row in rows]
    sides = {
        "reply": _replies(rows),
        "confidence": _quarters([row.capture.confidence for row in rows]),
        "topic": topics([_text(row) for row in rows], seed=seed),
    }
    return {
        "requests": len(rows),
        "labelled": sum(picked),
        **{f"by_{name}": _compared(found, picked, seed) for name, found in sides.items() if len(set(found)) > 1},
    }


def _compared(found: Sequence[str], picked: Sequence[bool], seed: int) -> Mapping[str, Any]:
    every = Counter(found)
    chosen = Counter(one for one, taken in zip(found, picked, strict=True) if taken)
    drawn = random.Random(seed)
    count = sum(picked)
    by_chance = sorted(_distance(every, Counter(drawn.sample(found, count))) for _ in range(_SHUFFLES)) if count else []
    return {
        "distance": round(_distance(every, chosen), 4) if count else None,
        "chance": round(by_chance[int(0.95 * _SHUFFLES)], 4) if count else None,
        "shares": [
            {"value": value, "requests": every[value], "labelled": chosen[value]}
            for value, _ in sorted(every.items(), key=lambda item: (-item[1], item[0]))[:_MOST_ROWS]
        ],
    }


def _distance(one: Counter[str], other: Counter[str]) -> float:
    return sum(abs(one[value] / one.total() - other[value] / other.total()) for value in one | other) / 2


def _replies(rows: Sequence[Labelled]) -> list[str]:
    """The reply where it is a class (given three times or more); all others together."""
    counts: Counter[Hashable] = Counter(row.capture.reply.strip() for row in rows)
    found = [row.capture.reply.strip() for row in rows]
    return [reply if counts[reply] >= 3 else _OTHERS for reply in found]


def _quarters(confidences: Sequence[float | None]) -> list[str]:
    known = sorted(value for value in confidences if value is not None)
    if not known:
        return [""] * len(confidences)
    edges = [known[len(known) * part // 4] for part in (1, 2, 3)]
    return [
        "unknown" if value is None else f"quarter {1 + sum(value >= edge for edge in edges)}" for value in confidences
    ]


def _text(row: Labelled) -> str:
    prompt = turns(row.capture.prompt)
    return prompt[-1].content if prompt else ""
