"""How right a reply is, from 0 to 1, by the scorer that its alias's owner chose."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence

_CHRF_ORDER = 6
_CHRF_BETA = 2.0


def score(
    kind: str, reply: str, expected: str | None, rating: float | None, pattern: str | None = None
) -> float | None:
    """Score `reply` in 0..1, or None where there is nothing to judge it by.

    Args:
        kind: `exact`, `json` (share of equal fields), `regex` (full match of `pattern`), `rouge_l` or `chrf`.
        expected: the reply that would have been right; it outranks `rating`.
        rating: a user's signal in -1..1, used where no target came.

    Raises:
        ValueError: `kind` is no scorer.
    """
    if kind == "regex" and pattern is not None:
        return float(re.fullmatch(pattern, reply.strip()) is not None)
    if expected is None:
        return None if rating is None or not math.isfinite(rating) else (min(1.0, max(-1.0, rating)) + 1.0) / 2.0
    match kind:
        case "exact" | "regex":
            return float(reply.strip() == expected.strip())
        case "json":
            return _json_fields(reply, expected)
        case "rouge_l":
            return _rouge_l(reply.split(), expected.split())
        case "chrf":
            return _chrf(reply, expected)
        case _:
            raise ValueError(f"There is no scorer {kind!r}.")


def _json_fields(reply: str, expected: str) -> float:
    """The share of fields, of either side, on which both agree; a reply that is not JSON scores 0."""
    try:
        wanted = json.loads(expected, parse_constant=_not_json)
        found = json.loads(reply, parse_constant=_not_json)
    except (ValueError, RecursionError):
        return float(reply.strip() == expected.strip())
    if not isinstance(wanted, dict) or not isinstance(found, dict):
        return float(wanted == found)
    keys = wanted.keys() | found.keys()
    return sum(k in wanted and k in found and wanted[k] == found[k] for k in keys) / len(keys) if keys else 1.0


def _not_json(constant: str) -> float:
    """NaN and Infinity are no JSON, and NaN would not even equal itself."""
    raise ValueError(constant)


def _rouge_l(reply: Sequence[str], expected: Sequence[str]) -> float:
    """F1 over the longest common subsequence of words (Lin, "ROUGE", 2004)."""
    if not reply or not expected:
        return float(list(reply) == list(expected))
    row = [0] * (len(expected) + 1)
    for word in reply:
        diagonal = 0
        for i, wanted in enumerate(expected, start=1):
            above = row[i]
            row[i] = diagonal + 1 if word == wanted else max(above, row[i - 1])
            diagonal = above
    common = row[-1]
    return 2.0 * common / (len(reply) + len(expected))


def _chrf(reply: str, expected: str) -> float:
    """Character n-gram F2 over orders 1 to 6 (Popović, "chrF", WMT 2015)."""
    left, right = "".join(reply.split()), "".join(expected.split())
    if not left or not right:
        return float(left == right)
    precisions, recalls = [], []
    for order in range(1, min(_CHRF_ORDER, max(len(left), len(right))) + 1):
        mine = Counter(left[i : i + order] for i in range(len(left) - order + 1))
        theirs = Counter(right[i : i + order] for i in range(len(right) - order + 1))
        common = sum((mine & theirs).values())
        precisions.append(common / max(1, sum(mine.values())))
        recalls.append(common / max(1, sum(theirs.values())))
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    weight = _CHRF_BETA**2
    return (1 + weight) * precision * recall / (weight * precision + recall) if precision + recall else 0.0
