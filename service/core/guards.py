"""What a candidate may not make worse, whatever it gains: measured on the requests that both sides answered, with or
without labels.

A guard's differences d lie in [-1, 1], above 0 where the candidate is better. It is passed once betting proves that the
mean of d is above minus its margin, and failed once it proves the contrary (core/promotion.py has the method). Every
guard must be passed, so each may use the whole of alpha (an intersection-union test, Berger 1982).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from service.core.promotion import Decision, Policy, Ruling, e_value


class Guard(StrEnum):
    """Estimated quality (the replies' mean token probability), same replies, same length, no refusals, no errors."""

    CONFIDENCE = "confidence"
    AGREEMENT = "agreement"
    LENGTH = "length"
    REFUSALS = "refusals"
    ERRORS = "errors"


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply; `confidence` in nats a token, as the engine gave it."""

    text: str
    confidence: float | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Beside:
    """The same request, answered by both."""

    champion: Answer
    candidate: Answer


_REFUSAL = re.compile(
    r"\s*(i'?m sorry|i am sorry|sorry,|i can(no|')t (help|assist|do|provide|answer)|i'?m (unable|not able) to"
    r"|as an ai\b)",
    re.IGNORECASE,
)


def judge_guard(guard: Guard, rows: Sequence[Beside], margin: float, policy: Policy, *, elapsed_s: float) -> Ruling:
    """PROMOTE: proven to hold; REJECT: proven not to, or not proven in time."""
    needed = 1.0 / policy.alpha
    found = [d for d in map(_DIFFERENCES[guard], rows) if d is not None and math.isfinite(d)]
    n = len(found)
    mean = math.fsum(found) / n if n else None
    holds = e_value(found, null_mean=-margin) if n else 1.0
    broken = e_value([-d for d in found], null_mean=margin) if n else 1.0
    told = (
        f"{guard}: {mean:+.3f} on {n} requests, allowed {-margin:+.3f}" if mean is not None else f"{guard}: no request"
    )

    def ruling(decision: Decision, reason: str) -> Ruling:
        return Ruling(decision, (f"{told}; {reason}.",), n, None, mean, holds, needed)

    if n >= policy.min_pairs and broken >= needed:
        return ruling(Decision.REJECT, f"evidence {broken:.1f} that it is worse than allowed")
    if n >= policy.min_pairs and holds >= needed:
        return ruling(Decision.PROMOTE, f"evidence {holds:.1f} that it holds")
    if n >= policy.max_pairs or elapsed_s >= policy.max_shadow_s:
        return ruling(Decision.REJECT, f"not proven to hold in time (evidence {holds:.1f} of {needed:.1f})")
    return ruling(Decision.HOLD, f"evidence {holds:.1f} of {needed:.1f}")


def _both(rows: Beside) -> bool:
    return not rows.champion.failed and not rows.candidate.failed


def _confidence(row: Beside) -> float | None:
    before, after = row.champion.confidence, row.candidate.confidence
    if not _both(row) or before is None or after is None or not math.isfinite(before + after):
        return None
    return math.exp(min(0.0, after)) - math.exp(min(0.0, before))


def _agreement(row: Beside) -> float | None:
    same = row.champion.text.split() == row.candidate.text.split()
    return (0.0 if same else -1.0) if _both(row) else None


def _length(row: Beside) -> float | None:
    lengths = len(row.champion.text), len(row.candidate.text)
    return -(max(lengths) - min(lengths)) / max(1, *lengths) if _both(row) else None


def _refusals(row: Beside) -> float | None:
    if not _both(row):
        return None
    return float(_REFUSAL.match(row.champion.text) is not None) - float(_REFUSAL.match(row.candidate.text) is not None)


def _errors(row: Beside) -> float:
    return float(row.champion.failed) - float(row.candidate.failed)


_DIFFERENCES: Mapping[Guard, Callable[[Beside], float | None]] = {
    Guard.CONFIDENCE: _confidence,
    Guard.AGREEMENT: _agreement,
    Guard.LENGTH: _length,
    Guard.REFUSALS: _refusals,
    Guard.ERRORS: _errors,
}
