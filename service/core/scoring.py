"""How right a reply is, from 0 to 1, by the scorer that its alias's owner chose."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence

_CHRF_ORDER = 6
_CHRF_BETA = 2.0
_BLEU_ORDER = 4


def score(
    kind: str, reply: str, expected: str | None, rating: float | None, pattern: str | None = None
) -> float | None:
    """Score `reply` in 0..1, or None where there is nothing to judge it by.

    Args:
        kind: `exact`, `classification` (the same label, whatever its case, spaces, quotes and full stop), `json` (share
            of equal fields), `regex` (full match of `pattern`), `rouge_l`, `chrf` or `bleu`.
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
        case "classification":
            return float(label_of(reply) == label_of(expected))
        case "json":
            return _json_fields(reply, expected)
        case "rouge_l":
            return _rouge_l(reply.split(), expected.split())
        case "chrf":
            return _chrf(reply, expected)
        case "bleu":
            return _bleu(reply.split(), expected.split())
        case _:
            raise ValueError(f"There is no scorer {kind!r}.")


def label_of(reply: str) -> str:
    """The label that a reply names; an answer such as `"Refund".` names `refund`."""
    return " ".join(reply.casefold().split()).strip("\"'`. ")


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


def _bleu(reply: Sequence[str], expected: Sequence[str]) -> float:
    """Sentence BLEU over words, orders 1 to 4 as far as the reply reaches, with exponential smoothing (Papineni et al.,
    ACL 2002; Chen & Cherry, WMT 2014, method 3)."""
    if not reply or not expected:
        return float(list(reply) == list(expected))
    logs: list[float] = []
    smoothing = 1.0
    for order in range(1, min(_BLEU_ORDER, len(reply)) + 1):
        mine = Counter(tuple(reply[i : i + order]) for i in range(len(reply) - order + 1))
        theirs = Counter(tuple(expected[i : i + order]) for i in range(len(expected) - order + 1))
        common, total = sum((mine & theirs).values()), sum(mine.values())
        if common == 0:
            if order == 1:
                return 0.0
            smoothing *= 2.0
        logs.append(math.log((common or 1.0 / smoothing) / total))
    shortness = min(0.0, 1.0 - len(expected) / len(reply))
    return math.exp(shortness + math.fsum(logs) / len(logs))
