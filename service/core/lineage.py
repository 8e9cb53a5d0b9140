"""Why a cycle ended as it did, read out of its audit events.

Alarm → data → training settings and seed → adapter → evaluation → verdict → actor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.core.records import Event

_PROVEN = ("pairs", "champion_mean", "candidate_mean", "evidence", "needed")


def lineage(events: Sequence[Event]) -> dict[str, Any]:
    """The facts that the events of one cycle tell, in order; what none of them tells is left out."""
    told = {event.kind: event for event in events}  # the last of a kind counts
    facts: dict[str, Any] = {}
    if opened := told.get("cycle.open"):
        check = _part(opened.evidence, "drift").get("check")
        facts["alarm"] = _known(
            trigger=opened.evidence.get("trigger"), reason=opened.message, by=opened.actor, drift_check=check
        )
    if shadowed := told.get("cycle.shadowing"):
        job = _part(shadowed.evidence, "job")
        manifest, evaluation = _part(job, "manifest"), _part(job, "evaluation")
        data = _part(manifest, "dataset")
        facts["data"] = _known(
            digest=data.get("digest"), train=_count(data.get("train")), heldout=_count(data.get("heldout"))
        )
        facts["training"] = _known(
            job=_part(manifest, "job") or None, settings=_part(manifest, "settings") or None, code=manifest.get("code")
        )
        facts["candidate"] = _known(name=job.get("adapter"), digest=job.get("digest"))
        facts["evaluation"] = _known(
            reason=shadowed.message,
            golden=_scores(_part(evaluation, "golden")),
            heldout=_scores(_part(_part(evaluation, "heldout"), "all")),
        )
    if proven := told.get("cycle.promoting") or told.get("cycle.rejected"):
        shadow = _part(proven.evidence, "shadow")
        facts["verdict"] = _known(reason=proven.message, **{name: shadow.get(name) for name in _PROVEN})
    if approved := told.get("cycle.approved"):
        facts["approved"] = _known(by=approved.actor, at=approved.at)
    if promoted := told.get("alias.promoted"):
        facts["promoted"] = _known(by=promoted.actor, at=promoted.at, reason=promoted.message)
    if back := told.get("alias.rolled_back"):
        facts["rolled_back"] = _known(by=back.actor, at=back.at, reason=back.message)
    return {name: found for name, found in facts.items() if found}


def explanation(facts: Mapping[str, Any]) -> str:
    """The facts of `lineage` as one paragraph with their numbers."""
    told = []
    if alarm := facts.get("alarm"):
        told.append(
            f"{alarm['by']} opened the cycle ({alarm.get('trigger', 'no trigger')}): {_sentence(alarm['reason'])}"
        )
    if data := facts.get("data"):
        seed = _part(facts.get("training", {}), "settings").get("seed")
        seeded = "" if seed is None else f" with seed {seed}"
        counts = f"{data.get('train', 'an unknown number of')} requests, {data.get('heldout', 'none')} held out"
        told.append(f"It learned from {counts}{seeded}.")
    for name, what in (("golden", "the golden set"), ("heldout", "held-out requests")):
        scores = _part(facts.get("evaluation", {}), name)
        if {"champion", "candidate", "n"} <= scores.keys():
            told.append(f"On {what}: {_change(scores['champion'], scores['candidate'])} ({scores['n']} examples).")
    if verdict := facts.get("verdict"):
        told.append(f"Verdict: {_sentence(verdict['reason'])}")
    for name, what in (("approved", "approved it"), ("promoted", "promoted it"), ("rolled_back", "rolled it back")):
        if done := facts.get(name):
            because = f": {_sentence(done['reason'])}" if name == "rolled_back" else "."
            told.append(f"{done['by']} {what}{because}")
    return " ".join(told)


def _change(before: Any, after: Any) -> str:
    scores = [f"{value:.1%}" if isinstance(value, int | float) else "unknown" for value in (before, after)]
    return " → ".join(scores)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _part(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, Mapping) else {}


def _scores(slice_: Mapping[str, Any]) -> dict[str, Any] | None:
    return {name: slice_[name] for name in ("champion", "candidate", "n") if name in slice_} or None


def _count(rows: Any) -> int | None:
    return len(rows) if isinstance(rows, Sequence) else None


def _known(**facts: Any) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}
