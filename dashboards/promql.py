"""The PromQL that panels are made of. Only the leader's gauges count: a follower shows what it last set."""

from __future__ import annotations

ALIAS = 'alias=~"$alias"'
LEADER = "and on (instance) trimtab_controller_leader == 1"
CYCLE_STATES = ("open", "training", "evaluating", "shadowing", "canary", "promoting", "watching")
VERDICTS = ("STABLE", "INCONCLUSIVE", "DRIFTED")


def rate(counter: str, *by: str, where: str = ALIAS, window: str = "$__rate_interval") -> str:
    """Per-second rate of a counter, summed over everything but `by`."""
    return f"sum by ({', '.join(by)}) (rate({counter}{{{where}}}[{window}]))"


def increase(counter: str, *by: str, where: str = ALIAS, window: str = "$__range") -> str:
    return f"sum by ({', '.join(by)}) (increase({counter}{{{where}}}[{window}]))"


def quantile(q: float, histogram: str) -> str:
    """The q-quantile per alias of a histogram of seconds or ratios."""
    return f"histogram_quantile({q:g}, {rate(histogram + '_bucket', 'alias', 'le')})"


def led(gauge: str, *by: str, where: str = ALIAS) -> str:
    """A gauge as the leading controller sets it."""
    return f"max by ({', '.join(by)}) ({gauge}{{{where}}} {LEADER})"


def code(gauge: str, label: str, values: tuple[str, ...]) -> str:
    """One number per alias for a gauge that is 1 for the value in force: 1 for the first of `values`; 0 for none."""
    inner = " or ".join(f'({gauge}{{{ALIAS}, {label}="{value}"}} == 1) * {n}' for n, value in enumerate(values, 1))
    return f"max by (alias) (({inner} or {gauge}{{{ALIAS}}} * 0) {LEADER})"


def or_zero(expr: str, by: str = "") -> str:
    """Zero (per alias, or once) where nothing was counted yet, so that an empty panel means that scraping failed."""
    zero = f"0 * max by ({by}) (trimtab_champion_info{{{ALIAS}}})" if by else "vector(0)"
    return f"({expr}) or on ({by}) {zero}"
