"""Whether the evidence suffices to promote: anytime-valid, so it may be looked at after every request.

For paired scores the differences d = candidate - champion lie in [-1, 1]. Against the null "the mean is at most m",
each bet λ gives the test martingale K_t = Π (1 + λ (d_i - m)); a mixture over bets stays one, so by Ville's inequality
P(sup K_t ≥ 1/α) ≤ α however often it is watched (Waudby-Smith & Ramdas, "Estimating means of bounded random variables
by betting", JRSS-B 2024). The bets are fixed, so the order of the pairs does not matter: labels may come in any order,
which a bet that learns from the pairs before it would not survive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

BETS = ((0.05, 0.05), (0.1, 0.1), (0.2, 0.2), (0.35, 0.2), (0.6, 0.2), (0.95, 0.25))
"""Bets and their weights. The best bet on a gain g is about g / E d², at most 1; see docs/promotion.md."""

_WATCH_PATIENCE = 3
"""A watch that lacks labels ends after this many times its length, so that the alias is not blocked for ever."""


class Decision(StrEnum):
    """Worst wins: a REJECT outweighs a HOLD, a HOLD a PROMOTE."""

    PROMOTE = "promote"
    HOLD = "hold"
    REJECT = "reject"


_ROUNDING = 1e-9
"""0.92 - 0.87 is a little more than 0.05 in floating point, and is no loss beyond a margin of 0.05."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a promotion needs.

    `golden_margin` is how much worse than the champion's the golden score may be. `indifference` is the gain (0..1)
    that is not worth a promotion: a candidate that is proven to bring less is rejected.
    """

    alpha: float
    min_pairs: int
    max_pairs: int
    max_shadow_s: float
    golden_margin: float
    indifference: float


@dataclass(frozen=True, slots=True)
class Pair:
    """One labelled request, judged twice; scores in 0..1."""

    champion: float
    candidate: float


@dataclass(frozen=True, slots=True)
class GoldenScores:
    """Mean scores on the golden set, and its size."""

    champion: float
    candidate: float
    n: int


@dataclass(frozen=True, slots=True)
class Past:
    """Mean scores (0..1) in the shadow comparison: of the champion then, and of the one that took its place."""

    previous: float
    own: float | None = None


@dataclass(frozen=True, slots=True)
class WatchRule:
    """How long a new champion is watched, and on how many labels at least.

    `margin` is how far it may stay behind its own mean in shadow; `min_pairs` is from how many pairs on those with the
    previous champion excuse it.
    """

    watch_s: float
    min_labelled: int
    margin: float = 0.1
    min_pairs: int = 10


@dataclass(frozen=True, slots=True)
class Ruling:
    """A decision with its reasons and the numbers behind it. `evidence` reaches `needed` when the case is proven."""

    decision: Decision
    reasons: tuple[str, ...]
    pairs: int = 0
    champion_mean: float | None = None
    candidate_mean: float | None = None
    evidence: float = 1.0
    needed: float = math.inf


def e_value(differences: Sequence[float], *, null_mean: float = 0.0) -> float:
    """Evidence against "the mean difference is at most `null_mean`": ≥ 1/α with chance ≤ α if that is true.

    Args:
        differences: in [-1, 1], in the order in which they came.
        null_mean: in (-1, 1).
    """
    scale = 1.0 / (1.0 + null_mean)
    logs = [
        math.log(weight) + math.fsum(math.log1p(bet * scale * (d - null_mean)) for d in differences)
        for bet, weight in BETS
    ]
    top = max(logs)
    return math.exp(min(top, 700.0)) * math.fsum(math.exp(value - top) for value in logs)


def judge_golden(golden: GoldenScores | None, policy: Policy) -> Ruling:
    """The golden set is a gate: missing, empty or NaN evidence holds, a loss beyond the margin rejects."""
    if golden is None or golden.n <= 0:
        return Ruling(Decision.HOLD, ("The golden set has not been evaluated.",))
    if not (math.isfinite(golden.champion) and math.isfinite(golden.candidate)):
        return Ruling(Decision.HOLD, ("The golden evaluation holds values that are not numbers.",))
    loss = golden.champion - golden.candidate
    told = f"golden set {golden.champion:.1%} → {golden.candidate:.1%} on {golden.n} examples"
    if loss > policy.golden_margin + _ROUNDING:
        return Ruling(Decision.REJECT, (f"The {told} loses more than the margin of {policy.golden_margin:.1%}.",))
    return Ruling(Decision.PROMOTE, (f"The {told} stays within the margin of {policy.golden_margin:.1%}.",))


def judge_shadow(pairs: Sequence[Pair], policy: Policy, *, elapsed_s: float) -> Ruling:
    """Promote what is proven better; reject what is proven not worth it, and what time or samples have run out for.

    Between no gain and a gain of `indifference` either answer is right; above it a rejection for that has a chance of
    at most α.
    """
    needed = 1.0 / policy.alpha
    if any(not math.isfinite(p.champion) or not math.isfinite(p.candidate) for p in pairs):
        return Ruling(Decision.HOLD, ("The shadow evidence holds values that are not numbers.",), needed=needed)
    n = len(pairs)
    if n == 0:
        if elapsed_s >= policy.max_shadow_s:
            return Ruling(Decision.REJECT, ("Time ran out without one labelled pair.",), needed=needed)
        return Ruling(Decision.HOLD, ("No labelled pair yet.",), needed=needed)
    differences = [p.candidate - p.champion for p in pairs]
    champion = math.fsum(p.champion for p in pairs) / n
    candidate = math.fsum(p.candidate for p in pairs) / n
    better = e_value(differences)
    too_little = e_value([-d for d in differences], null_mean=-policy.indifference)
    told = f"champion {champion:.1%}, candidate {candidate:.1%} on {n} labelled pairs"

    def ruling(decision: Decision, reason: str) -> Ruling:
        return Ruling(decision, (reason,), n, champion, candidate, better, needed)

    if n >= policy.min_pairs and better >= needed:
        return ruling(Decision.PROMOTE, f"{told}: evidence {better:.1f} reaches {needed:.1f}.")
    if n >= policy.min_pairs and too_little >= needed:
        least = f"gain of {policy.indifference:.1%}" if policy.indifference else "gain"
        return ruling(Decision.REJECT, f"{told}: no {least} (evidence {too_little:.1f} of {needed:.1f}).")
    if n >= policy.max_pairs:
        return ruling(Decision.REJECT, f"{told}: not proven better within {policy.max_pairs} pairs.")
    if elapsed_s >= policy.max_shadow_s:
        return ruling(Decision.REJECT, f"{told}: not proven better within {policy.max_shadow_s:.0f} s.")
    if n < policy.min_pairs:
        return ruling(Decision.HOLD, f"{told}: at least {policy.min_pairs} are needed.")
    return ruling(Decision.HOLD, f"{told}: evidence {better:.1f} of {needed:.1f}.")


def judge_watch(
    scores: Sequence[float], past: Past, pairs: Sequence[Pair], policy: Policy, rule: WatchRule, *, elapsed_s: float
) -> Ruling:
    """After a promotion: REJECT means roll back, PROMOTE means the watch is over, HOLD means go on watching.

    Two things are proven by betting: that the new champion is worse than the one before it, by its mean then and by
    pairs since (the mean of two e-values is one); and that it stays behind what it showed itself in shadow, which
    counts unless the pairs speak for it: the traffic may have become harder for both.

    Args:
        scores: the new champion's scores on labelled requests since it was promoted, each in 0..1.
        pairs: those of them that the previous one answered too, in shadow; `candidate` is the previous one's score.
    """
    needed = 1.0 / policy.alpha
    clean = [s for s in scores if math.isfinite(s)]
    sound = [p for p in pairs if math.isfinite(p.champion) and math.isfinite(p.candidate)]
    n = len(clean)
    mean = math.fsum(clean) / n if n else None
    gains = [p.candidate - p.champion for p in sound]
    against_before = [e_value([past.previous - s for s in clean])] if n else []
    against_before += [e_value(gains)] if gains else []
    worse = math.fsum(against_before) / len(against_before) if against_before else 1.0
    holds_beside = len(sound) >= rule.min_pairs and math.fsum(gains) < 0.0
    floor = past.own - rule.margin if past.own is not None and not holds_beside else -math.inf
    short = e_value([max(-1.0, floor - s) for s in clean]) if n and math.isfinite(floor) else 1.0
    beside = f"; {len(sound)} pairs with the previous one" if sound else ""

    def ruling(decision: Decision, reason: str) -> Ruling:
        return Ruling(decision, (f"{reason}{beside}.",), n, past.previous, mean, max(worse, short), needed)

    told = f"Quality {mean:.1%} on {n} labelled requests" if mean is not None else "No labelled request"
    if n >= rule.min_labelled and worse >= needed:
        return ruling(Decision.REJECT, f"{told} is below the previous {past.previous:.1%}: evidence {worse:.1f}")
    if n >= rule.min_labelled and short >= needed:
        return ruling(Decision.REJECT, f"{told} is below its own {past.own:.1%} in shadow: evidence {short:.1f}")
    if n < rule.min_labelled and elapsed_s >= _WATCH_PATIENCE * rule.watch_s:
        return ruling(Decision.PROMOTE, f"The watch ended with only {n} labelled requests: too few to fault it")
    if elapsed_s < rule.watch_s or n < rule.min_labelled:
        return ruling(Decision.HOLD, f"Watched for {elapsed_s:.0f} of {rule.watch_s:.0f} s, {n} labelled requests")
    return ruling(Decision.PROMOTE, f"{told} holds against {past.previous:.1%}")


def worst(rulings: Sequence[Ruling]) -> Decision:
    """Of several gates the worst wins; no gate at all holds."""
    found = {ruling.decision for ruling in rulings}
    for decision in (Decision.REJECT, Decision.HOLD, Decision.PROMOTE):
        if decision in found:
            return decision
    return Decision.HOLD
