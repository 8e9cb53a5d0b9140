"""What opens an alias's next cycle, and what holds it back."""

from __future__ import annotations

from collections.abc import Sequence

from service.core.cycle import Trigger
from service.core.records import Alias, Cycle
from service.core.steps import Action, Latch, Mode, Observed, OpenCycle, PlanPolicy

DRIFTED = "DRIFTED"


def held_back(alias: Alias, last: Cycle | None, opened_today: int, policy: PlanPolicy, now: float) -> str | None:
    """Why no cycle may open by itself now; None where one may. A person's word is above all of this."""
    if policy.mode is Mode.MANUAL:
        return "promotion.mode is manual: only people open cycles."
    if alias.latched or alias.failures >= policy.max_failures:
        return f"{alias.failures} cycles in a row failed; `trimtab aliases unlatch {alias.name}` allows the next."
    if last is not None and last.closed_at is not None and now - last.closed_at < policy.cooldown_s:
        return f"The last cycle ended {now - last.closed_at:.0f} s ago; promotion.cooldown_s is {policy.cooldown_s:g}."
    if opened_today >= policy.max_cycles_per_day:
        return f"{opened_today} cycles were opened in 24 hours, as many as retrain.max_cycles_per_day allows."
    return None


def between_cycles(seen: Observed, policy: PlanPolicy, now: float) -> Sequence[Action]:
    alias = seen.alias
    if not alias.latched and alias.failures >= policy.max_failures:
        return [
            Latch(f"{alias.failures} cycles in a row failed; `trimtab aliases unlatch {alias.name}` allows the next.")
        ]
    if held_back(alias, seen.last, seen.opened_today, policy, now) is not None:
        return []
    start = _on_drift(seen) or _on_labels(seen, policy) or _on_schedule(seen, policy, now)
    return [start] if start is not None else []


def _on_drift(seen: Observed) -> OpenCycle | None:
    check, closed = seen.drift, seen.last.closed_at if seen.last is not None else None
    if check is None or check.verdict != DRIFTED or not check.retrain:
        return None
    if check.at <= seen.alias.reference_since or (closed is not None and check.at <= closed):
        return None
    evidence = {
        "drift": {
            "check": check.id,
            "at": check.at,
            "reasons": list(check.reasons),
            "scores": [dict(score) for score in check.scores],
            "quality_reference": check.quality_reference,
            "quality_current": check.quality_current,
            "since": check.since,
            # Without their example texts: this goes into the audit log, from which nothing can be erased.
            "topics": [{**topic, "examples": []} for topic in check.topics],
        }
    }
    return OpenCycle(Trigger.DRIFT, check.reasons[0] if check.reasons else "The traffic drifted.", evidence)


def _on_labels(seen: Observed, policy: PlanPolicy) -> OpenCycle | None:
    if policy.labels is None or seen.new_examples < policy.labels:
        return None
    reason = f"{policy.labels} requests were labelled since the last cycle (retrain.every_labels)."
    return OpenCycle(Trigger.LABELS, reason, {"labels": {"labelled": policy.labels}})


def _on_schedule(seen: Observed, policy: PlanPolicy, now: float) -> OpenCycle | None:
    since = quiet_since(seen.alias, seen.last)
    if policy.every_s is None or now - since < policy.every_s or seen.new_examples < policy.min_examples:
        return None
    reason = f"{now - since:.0f} s have passed since the last cycle (retrain.every_s is {policy.every_s:g})."
    return OpenCycle(Trigger.SCHEDULE, reason, {"schedule": {"since": since}})


def quiet_since(alias: Alias, last: Cycle | None) -> float:
    """When the alias last changed or a cycle of it ended: what is new has come since (Unix seconds)."""
    return max(alias.reference_since, (last.closed_at or 0.0) if last is not None else 0.0)
