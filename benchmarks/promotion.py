"""How often promotion errs, and how many labelled pairs it needs: `python -m benchmarks.promotion`.

Simulated shadow comparisons are judged after every single pair, as the controller may. `first_rulings` is the rule of
`service.core.promotion.judge_shadow` over many comparisons at once; samples of them are checked against it.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from service.core.promotion import BETS, Decision, Pair, Policy, judge_shadow
from service.settings import PromotionSettings

Floats = NDArray[np.float64]
Pairs = tuple[Floats, Floats]
"""Scores of champion and candidate, each of shape (comparisons, pairs)."""

Draw = Callable[[np.random.Generator, int, int, float], Pairs]

GAIN = 0.10
CREDIT = 0.95
"""Confidence of the lower bound at which a simulated power is credited to the rule."""

MOST_ERRORS, MOST_PAIRS = 0.05, 0.6
_BATCH = 250
_CHECKED = 20


@dataclass(frozen=True, slots=True)
class Rulings:
    """When each comparison ended (pairs) and whether by a promotion."""

    pairs: NDArray[np.int64]
    promoted: NDArray[np.bool_]


def binary(discordance: float) -> Draw:
    """Right or wrong; the two replies are judged differently in a share `discordance` of the requests."""

    def draw(rng: np.random.Generator, runs: int, n: int, gain: float) -> Pairs:
        u = rng.random((runs, n))
        wins, losses = u < (discordance + gain) / 2, u > 1 - (discordance - gain) / 2
        both = rng.random((runs, n)) < 0.75
        champion = np.where(wins, 0.0, np.where(losses, 1.0, both))
        candidate = np.where(wins, 1.0, np.where(losses, 0.0, both))
        return champion, candidate

    return draw


def graded(common: float) -> Draw:
    """Overlaps in 0..1; a share `common` of each score comes from the request, the rest from the reply."""

    def draw(rng: np.random.Generator, runs: int, n: int, gain: float) -> Pairs:
        request = rng.beta(2.0, 2.0, (runs, n))

        def replies(mean: float) -> Floats:
            return common * request + (1 - common) * rng.beta(4 * mean, 4 * (1 - mean), (runs, n))

        return replies(0.5), replies(0.5 + gain / (1 - common))

    return draw


TRAFFIC: Mapping[str, Draw] = {
    "binary, 85% agree": binary(0.15),
    "binary, 70% agree": binary(0.30),
    "binary, 50% agree": binary(0.50),
    "graded, unlike": graded(0.2),
    "graded, alike": graded(0.6),
}
NOT_JUDGED = "graded, alike"
"""Its fixed-size test trusts that differences this small are normal. Without that trust no test proves a gain of 0.1
at 5% with fewer than ln 20 / ln 1.1 = 32 pairs: one pair in 11 might be a loss of 1 that has not come yet."""


def log_evidence(differences: Floats, null_mean: float) -> Floats:
    """log of `e_value` after each pair, along the last axis."""
    total = np.full(differences.shape, -np.inf)
    for bet, weight in BETS:
        growth = np.log1p(bet / (1 + null_mean) * (differences - null_mean))
        total = np.logaddexp(total, math.log(weight) + np.cumsum(growth, axis=1))
    return total


def first_rulings(champion: Floats, candidate: Floats, policy: Policy) -> Rulings:
    """Judge after each pair until the first PROMOTE or REJECT."""
    differences = (candidate - champion)[:, : policy.max_pairs]
    needed = -math.log(policy.alpha)
    better = log_evidence(differences, 0.0) >= needed
    ended = better | (log_evidence(-differences, -policy.indifference) >= needed)
    ended[:, : policy.min_pairs - 1] = False
    ended[:, -1] = True
    last = ended.argmax(axis=1)
    return Rulings(last + 1, np.take_along_axis(better, last[:, None], axis=1)[:, 0])


def simulate(draw: Draw, gain: float, policy: Policy, runs: int, seed: int) -> Rulings:
    rng = np.random.default_rng(seed)
    found = []
    for start in range(0, runs, _BATCH):
        champion, candidate = draw(rng, min(_BATCH, runs - start), policy.max_pairs, gain)
        found.append(first_rulings(champion, candidate, policy))
        if start == 0:
            _check_against_core(champion, candidate, found[0], policy)
    return Rulings(np.concatenate([r.pairs for r in found]), np.concatenate([r.promoted for r in found]))


def _check_against_core(champion: Floats, candidate: Floats, rulings: Rulings, policy: Policy) -> None:
    """The service's own rule holds until the pair before the last, and ends as simulated at the last."""
    for run in range(_CHECKED):
        end = int(rulings.pairs[run])
        pairs = [Pair(*scores) for scores in zip(champion[run, :end], candidate[run, :end], strict=True)]
        before = judge_shadow(pairs[:-1], policy, elapsed_s=0.0).decision
        after = judge_shadow(pairs, policy, elapsed_s=0.0).decision
        expected = Decision.PROMOTE if rulings.promoted[run] else Decision.REJECT
        if (before, after) != (Decision.HOLD, expected):
            raise SystemExit(f"error: comparison {run} is {before}, {after} in service.core.promotion, not {expected}")


def credited_power(promoted: int, runs: int) -> float:
    """One-sided lower bound of the power (Clopper and Pearson, 1934), by bisection."""
    if promoted < runs:
        return _bisect(lambda p: _tail(runs, promoted, p) - (1 - CREDIT), 0.0, promoted / runs)
    return float((1 - CREDIT) ** (1 / runs))


def fixed_size(differences: Floats, alpha: float, power: float) -> float:
    """Pairs of a one-sided fixed-size paired test of this size and power (for binary scores: McNemar's).

    The usual normal formula, n = ((z_a s0 + z_b s1) / gain)² with s0² = E d² under the null and s1² the variance
    (Miettinen, "On the matched-pairs design in the case of all-or-none responses", Biometrics 1968).
    """
    z = NormalDist().inv_cdf
    gain, second = float(differences.mean()), float((differences**2).mean())
    spread = math.sqrt(second - gain**2)
    null_spread = math.sqrt(second) if set(np.unique(differences)) <= {-1.0, 0.0, 1.0} else spread
    return float(((z(1 - alpha) * null_spread + z(power) * spread) / gain) ** 2)


def capped(rulings: Rulings, power: float) -> float | None:
    """Mean pairs if `max_pairs` were so small that the rule had just this power; None where it never has it."""
    found = np.sort(rulings.pairs[rulings.promoted])
    reached = math.ceil(power * len(rulings.pairs))
    return None if reached > len(found) else float(np.minimum(rulings.pairs, found[reached - 1]).mean())


def _tail(runs: int, at_least: int, p: float) -> float:
    """P(X ≥ at_least), X binomial, by the other side's sum: few runs fail."""
    logs = [
        math.lgamma(runs + 1) - math.lgamma(k + 1) - math.lgamma(runs - k + 1)
        + k * math.log(p) + (runs - k) * math.log1p(-p)
        for k in range(at_least, runs + 1)
    ]  # fmt: skip
    return math.fsum(math.exp(value) for value in logs)


def _bisect(rises: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if rises(middle) > 0 else (middle, high)
    return low


def main() -> int:
    """Both tables; exit code 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000, help="simulated comparisons a row")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    p = PromotionSettings()
    policy = Policy(p.alpha, p.min_pairs, p.max_pairs, p.max_shadow_s, p.golden_margin, p.indifference)
    console = Console(width=110)
    console.print(
        f"{options.runs} comparisons a row, judged after every pair; the defaults: alpha {p.alpha}, {p.min_pairs} to "
        f"{p.max_pairs} pairs, indifference {p.indifference}"
    )
    worst_error = errors(console, policy, options.runs, options.seed)
    worst_ratio = samples(console, policy, options.runs, options.seed + 1)
    console.print(
        f"type I error: {worst_error:.2%} at most (target: {MOST_ERRORS:.0%}); pairs: {worst_ratio:.2f} of the fixed "
        f"size at most (target: {MOST_PAIRS}; {NOT_JUDGED!r} has none)"
    )
    return int(worst_error > MOST_ERRORS or worst_ratio > MOST_PAIRS)


def errors(console: Console, policy: Policy, runs: int, seed: int) -> float:
    """A/A: candidate and champion are equally good, so every promotion is an error."""
    table = Table("no gain (A/A)", "promoted: type I error", "mean pairs until the end")
    shares = []
    for name, draw in TRAFFIC.items():
        found = simulate(draw, 0.0, policy, runs, seed)
        shares.append(float(found.promoted.mean()))
        table.add_row(name, f"{shares[-1]:.2%}", f"{found.pairs.mean():.0f}")
    console.print(table)
    return max(shares)


def samples(console: Console, policy: Policy, runs: int, seed: int) -> float:
    """A gain of 10 points: pairs until the end, against a fixed-size test of the power that the rule has shown."""
    table = Table(
        "gain of 10 points", "promoted", "power credited", "mean pairs", "fixed size", "ratio", "at power 95%", "90%"
    )
    ratios = []
    for name, draw in TRAFFIC.items():
        found = simulate(draw, GAIN, policy, runs, seed)
        champion, candidate = draw(np.random.default_rng(seed), 200, 2000, GAIN)
        differences = np.round(candidate - champion, 12)
        power = credited_power(int(found.promoted.sum()), runs)
        fixed, mean = fixed_size(differences, policy.alpha, power), float(found.pairs.mean())
        ratios.append(0.0 if name == NOT_JUDGED else mean / fixed)
        at = [
            "—" if (pairs := capped(found, lower)) is None
            else f"{pairs / fixed_size(differences, policy.alpha, lower):.2f}"
            for lower in (0.95, 0.90)
        ]  # fmt: skip
        table.add_row(
            name,
            f"{found.promoted.mean():.2%}",
            f"{power:.2%}",
            f"{mean:.0f}",
            f"{fixed:.0f}",
            f"{mean / fixed:.2f}",
            *at,
        )
    console.print(table)
    return max(ratios)


if __name__ == "__main__":
    sys.exit(main())
