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

from service.core.promotion import Decision, Pair, Policy, Ruling, e_value


class Guard(StrEnum):
    """Estimated quality (the replies' mean token probability), same replies, same length, no refusals, no errors; no
    slice that loses; and, measured in the evaluation: as soon a first token, as firm where people mistype."""

    CONFIDENCE = "confidence"
    AGREEMENT = "agreement"
    LENGTH = "length"
    REFUSALS = "refusals"
    ERRORS = "errors"
    SLICES = "slices"
    TTFT = "ttft"
    SLIPS = "slips"


IN_SHADOW = frozenset({Guard.CONFIDENCE, Guard.AGREEMENT, Guard.LENGTH, Guard.REFUSALS, Guard.ERRORS})
"""What `judge_guard` knows: one difference for each request that both have answered."""

MOST_SLICES = 10


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


def judge_slices(slices: Mapping[str, Sequence[Pair]], margin: float, policy: Policy) -> Ruling:
    """REJECT: on one slice the candidate is proven worse by more than the margin; PROMOTE otherwise.

    A slice may be rare, so none of them is waited for: unlike the other guards this one only finds harm. It has alpha
    for all slices together (of which it takes the first ten), so that many of them do not reject by chance.
    """
    needed = MOST_SLICES / policy.alpha
    told = []
    for name, pairs in list(slices.items())[:MOST_SLICES]:
        found = [d for d in (p.candidate - p.champion for p in pairs) if math.isfinite(d)]
        if not found:
            continue
        broken = e_value([-d for d in found], null_mean=margin)
        mean = math.fsum(found) / len(found)
        told.append((mean, f"{name} {mean:+.3f} on {len(found)}"))
        if broken >= needed:
            lost = f"slice {name}: {mean:+.3f} on {len(found)} labelled pairs, allowed {-margin:+.3f}"
            reason = f"{lost}; evidence {broken:.1f} that it is worse than allowed."
            return Ruling(Decision.REJECT, (reason,), len(found), None, mean, 1.0, needed)
    worst = f"the lowest is {min(told)[1]} pairs" if told else "no labelled pair bears a tag"
    return Ruling(Decision.PROMOTE, (f"slices: none is proven worse; {worst}.",), needed=needed)


def judge_measured(guard: Guard, loss: float | None, most: float | None, n: int, margin: float) -> Ruling:
    """A guard of the evaluation: REJECT unless its interval shows that the loss is within the margin.

    Args:
        loss: how much worse the candidate is, as a share; None, or not finite, where it was not measured.
        most: the upper end of its 95% interval.
    """
    if loss is None or most is None or n < 1 or not math.isfinite(loss + most):
        return Ruling(Decision.HOLD, (f"{guard}: it was not measured.",))
    told = f"{guard}: {loss:+.1%} (at most {most:+.1%}) on {n} rows, allowed {margin:+.1%}"
    return Ruling(Decision.PROMOTE if most <= margin else Decision.REJECT, (f"{told}.",), n)


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
