"""Reads from the store what a cycle's state asks for, and has the core rule on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from service.core.canary import CanaryRule, Live, judge_canary
from service.core.freeze import parse_freeze
from service.core.guards import IN_SHADOW, Answer, Beside, Guard, judge_guard, judge_slices
from service.core.names import BASE
from service.core.promotion import (
    Decision,
    GoldenScores,
    Pair,
    Past,
    Policy,
    Ruling,
    WatchRule,
    judge_golden,
    judge_shadow,
    judge_watch,
)
from service.core.records import Alias, Cycle, Job, Labelled, PairedReply
from service.core.steps import Mode, PlanPolicy
from service.drivers.scorers import score_or_none
from service.ports import Traffic
from service.settings import AliasSettings, Settings

_OVERLOADED = frozenset({429, 503, 504})
"""A shadow that gave way to clients says nothing about the candidate."""


def promotion_policy(settings: Settings) -> Policy:
    p = settings.promotion
    return Policy(p.alpha, p.min_pairs, p.max_pairs, p.max_shadow_s, p.golden_margin, p.indifference)


def plan_policy(settings: Settings) -> PlanPolicy:
    p, r = settings.promotion, settings.retrain
    return PlanPolicy(
        Mode(p.mode), p.cooldown_s, p.max_failures, r.stale_after_s, r.max_attempts, r.min_new_examples, r.max_wait_s,
        r.min_examples, r.every_s, r.every_labels, r.max_cycles_per_day, tuple(map(parse_freeze, p.freezes)),
        r.start_timeout_s, p.canary,
    )  # fmt: skip


def golden_ruling(job: Job, policy: Policy) -> Ruling:
    """The golden gate over the job's own evaluation."""
    return judge_golden(_scores(job.result, "golden"), policy)


def heldout_ruling(job: Job) -> Ruling:
    """A candidate that is worse than the champion on held-out requests does not reach live traffic."""
    found = _scores(job.result, "heldout", "all")
    if found is None:
        return Ruling(Decision.HOLD, ("The held-out requests have not been evaluated.",))
    told = f"Held-out requests {found.champion:.1%} → {found.candidate:.1%} on {found.n}."
    return Ruling(Decision.REJECT if found.candidate < found.champion else Decision.PROMOTE, (told,))


async def shadow_ruling(
    traffic: Traffic, alias: Alias, cycle: Cycle, judged: AliasSettings, policy: Policy, now: float
) -> Ruling:
    """The paired comparison on labelled live requests since the candidate went into shadow."""
    if cycle.candidate is None:
        return Ruling(Decision.HOLD, ("There is no candidate.",))
    replies = await traffic.paired(alias.name, cycle.candidate, since=cycle.state_since, limit=policy.max_pairs)
    pairs = [pair for pair in (_pair(reply, alias, judged) for reply in replies) if pair is not None]
    return judge_shadow(pairs, policy, elapsed_s=now - cycle.state_since)


async def guard_rulings(
    traffic: Traffic, alias: Alias, cycle: Cycle, judged: AliasSettings, policy: Policy, now: float
) -> Sequence[Ruling]:
    """One for each guard of the alias, on all requests that both have answered since the shadow began."""
    live = {guard: margin for guard, margin in judged.guards.items() if guard in IN_SHADOW}
    if cycle.candidate is None:
        return ()
    sliced = await _slice_rulings(traffic, alias, cycle.candidate, cycle.state_since, judged, policy)
    if not live:
        return sliced
    since = cycle.state_since
    found = await traffic.beside(alias.name, cycle.candidate, since=since, limit=policy.max_pairs)
    rows = [
        Beside(
            Answer(one.capture.reply, one.capture.confidence),
            Answer(one.shadow.reply, one.shadow.confidence, one.shadow.error is not None or one.shadow.status >= 400),
        )
        for one in found
        if one.capture.adapter == alias.champion and one.shadow.status not in _OVERLOADED
    ]
    return [*sliced, *(judge_guard(g, rows, margin, policy, elapsed_s=now - since) for g, margin in live.items())]


async def _slice_rulings(
    traffic: Traffic, alias: Alias, candidate: str, since: float, judged: AliasSettings, policy: Policy
) -> list[Ruling]:
    """One for all tags that labelled pairs bear, where the alias asks for it."""
    if Guard.SLICES not in judged.guards:
        return []
    slices: dict[str, list[Pair]] = {}
    for reply in await traffic.paired(alias.name, candidate, since=since, limit=policy.max_pairs):
        pair = _pair(reply, alias, judged)
        if pair is not None:
            for key, value in reply.capture.tags.items():
                slices.setdefault(f"{key}={value}", []).append(pair)
    return [judge_slices(slices, judged.guards[Guard.SLICES], policy)]


async def canary_ruling(traffic: Traffic, alias: Alias, cycle: Cycle, settings: Settings, now: float) -> Ruling | None:
    """Both sides as clients met them since the step began; None before its share is in force."""
    p, step = settings.promotion, cycle.evidence.get("canary", {})
    since, share = _number(step.get("since")), _number(step.get("share"))
    if since is None or cycle.candidate is None or share != alias.canary_ratio:
        return None
    champion = await _live(traffic, alias, alias.champion, settings, since)
    candidate = await _live(traffic, alias, cycle.candidate, settings, since)
    rule = CanaryRule(p.canary_step_s, p.canary_min_labelled, p.alpha)
    return judge_canary(champion, candidate, rule, share=share, elapsed_s=now - since)


async def _live(traffic: Traffic, alias: Alias, adapter: str, settings: Settings, since: float) -> Live:
    limit, judged = settings.promotion.max_pairs, settings.alias(alias.name)
    rows = await traffic.window(alias.name, since=since, limit=2 * limit, labelled_only=True)
    scores = [label_score(row, judged) for row in rows if row.capture.adapter == adapter]
    failed = await traffic.failed(alias.name, adapter, since=since, limit=limit)
    return Live([score for score in scores if score is not None], failed)


async def watch_ruling(traffic: Traffic, alias: Alias, cycle: Cycle, settings: Settings, now: float) -> Ruling:
    """The new champion since its promotion, against the previous one then and now, and against its own shadow."""
    p, since = settings.promotion, cycle.state_since
    judged = settings.alias(alias.name)
    rows = await traffic.window(alias.name, since=since, limit=p.max_pairs, labelled_only=True, newest=True)
    scores = [
        s for s in (label_score(row, judged) for row in rows if row.capture.adapter == alias.champion) if s is not None
    ]
    beside = await traffic.paired(alias.name, alias.previous or BASE, since=since, limit=p.max_pairs)
    pairs = [pair for pair in (_pair(reply, alias, judged) for reply in beside) if pair is not None]
    shadow = cycle.evidence.get("shadow", {})
    past = Past(_number(shadow.get("champion_mean")) or 0.0, _number(shadow.get("candidate_mean")))
    rule = WatchRule(p.watch_s, p.watch_min_labelled, p.watch_margin)
    return judge_watch(scores, past, pairs, promotion_policy(settings), rule, elapsed_s=now - since)


async def served_quality(traffic: Traffic, alias: Alias, settings: Settings) -> tuple[float | None, int]:
    """Mean score (0..1) of the newest labelled replies, and how many there were."""
    rows = await traffic.window(
        alias.name, since=0.0, limit=settings.controller.quality_window, labelled_only=True, newest=True
    )
    return mean_score(rows, settings.alias(alias.name))


def mean_score(rows: Sequence[Labelled], judged: AliasSettings) -> tuple[float | None, int]:
    scores = [s for s in (label_score(row, judged) for row in rows) if s is not None]
    return (math.fsum(scores) / len(scores) if scores else None), len(scores)


def label_score(row: Labelled, judged: AliasSettings) -> float | None:
    if row.feedback is None:
        return None
    return score_or_none(judged.scorer, row.capture.reply, row.feedback.expected, row.feedback.rating, judged.pattern)


def _pair(reply: PairedReply, alias: Alias, judged: AliasSettings) -> Pair | None:
    """Only a target can judge two replies; a rating belongs to the one that the user saw."""
    if reply.capture.adapter != alias.champion or reply.feedback.expected is None:
        return None
    champion, candidate = (
        score_or_none(judged.scorer, text, reply.feedback.expected, None, judged.pattern)
        for text in (reply.capture.reply, reply.shadow.reply)
    )
    return None if champion is None or candidate is None else Pair(champion, candidate)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _scores(result: Mapping[str, Any], *path: str) -> GoldenScores | None:
    """Two means in 0..1 on at least one example; None for whatever else stands there."""
    found: Any = result.get("evaluation", {})
    for part in path:
        found = found.get(part) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        return None
    champion, candidate, n = _number(found.get("champion")), _number(found.get("candidate")), found.get("n")
    if champion is None or candidate is None or not isinstance(n, int) or n < 1:
        return None
    are_shares = 0.0 <= champion <= 1.0 and 0.0 <= candidate <= 1.0
    return GoldenScores(champion, candidate, n) if are_shares else None
