"""Whether a candidate that answers some of the clients may answer more of them.

Who meets the candidate is decided by a hash, so both sides see the same kind of requests, and the first, second, …
request of each make pairs. Against "the candidate is not worse" the same bets are made as in core/promotion.py, so it
may be watched continuously.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from service.core.promotion import Decision, Ruling, e_value

_PATIENCE = 3
"""A step that lacks evidence ends after this many times its length: nobody is promoted without."""

_GUARDS = 2
"""Quality and errors: each may be wrong with half of alpha."""


@dataclass(frozen=True, slots=True)
class Live:
    """What one side did since the step began, in order of time: scores (0..1) of labelled replies, and whether each
    request failed."""

    scores: Sequence[float]
    failed: Sequence[bool]


@dataclass(frozen=True, slots=True)
class CanaryRule:
    """A step takes `step_s` and `min_labelled` labelled replies of the candidate; `alpha` is the chance of ending it
    for a candidate that is not worse."""

    step_s: float
    min_labelled: int
    alpha: float


def judge_canary(champion: Live, candidate: Live, rule: CanaryRule, *, share: float, elapsed_s: float) -> Ruling:
    """PROMOTE means on to the next step, REJECT that clients get the champion again."""
    needed = _GUARDS / rule.alpha
    ours = [s for s in candidate.scores if math.isfinite(s)]
    theirs = [s for s in champion.scores if math.isfinite(s)]
    paired = list(zip(theirs, ours, strict=False))
    failing = list(zip(champion.failed, candidate.failed, strict=False))
    worse = e_value([a - b for a, b in paired])
    broken = e_value([float(b) - float(a) for a, b in failing])
    n, errors = len(ours), sum(candidate.failed)
    before, mean = _mean(theirs), _mean(ours)
    told = f"At {share:.0%} of the clients: {n} labelled replies, {errors} of {len(candidate.failed)} requests failed"

    def ruling(decision: Decision, reason: str) -> Ruling:
        return Ruling(decision, (f"{told}; {reason}.",), len(paired), before, mean, max(worse, broken), needed)

    if worse >= needed:
        return ruling(Decision.REJECT, f"quality {mean:.1%} is below the champion's {before:.1%}: evidence {worse:.1f}")
    if broken >= needed:
        others = f"{sum(champion.failed)} of {len(champion.failed)}"
        return ruling(Decision.REJECT, f"the champion's: {others}; evidence of more errors {broken:.1f}")
    if n >= rule.min_labelled and theirs and elapsed_s >= rule.step_s:
        return ruling(Decision.PROMOTE, f"quality {mean:.1%} holds against {before:.1%}")
    if elapsed_s >= _PATIENCE * rule.step_s:
        return ruling(Decision.REJECT, f"{rule.min_labelled} were needed within {elapsed_s:.0f} s")
    return ruling(Decision.HOLD, "nothing speaks against it yet")


def _mean(scores: Sequence[float]) -> float | None:
    return math.fsum(scores) / len(scores) if scores else None
