"""The gates of a job's evaluation beyond golden set and held-out rows: through the engine, triggers, judge, first
token, slips.

Pure. Evidence that is asked for and is missing or no number holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from service.core.guards import Guard, judge_measured
from service.core.promotion import Decision, Ruling
from service.core.records import Job
from service.settings import Settings


def evaluation_gates(job: Job, settings: Settings, alias: str) -> list[tuple[str, Ruling]]:
    """Those that the settings ask for, by name."""
    evaluation = job.result.get("evaluation")
    found = evaluation if isinstance(evaluation, Mapping) else {}
    gates = []
    if settings.retrain.served_rows:
        gates.append(("served", served_ruling(found.get("served"))))
    if settings.retrain.check_labels:
        gates.append(("triggers'", triggers_ruling(found.get("triggers"))))
    judge = settings.alias(alias).judge
    if judge is not None and judge.margin is not None:
        gates.append(("judge's", judge_ruling(found.get("judge"), judge.margin)))
    guards = settings.alias(alias).guards
    for guard, (path, loss, ci) in _MEASURED.items():
        if guard in guards:
            gates.append((str(guard), measured_ruling(guard, _part(found, path), loss, ci, guards[guard])))
    return gates


_MEASURED = {
    Guard.TTFT: (("served", "ttft"), ("longer",), ("ci",)),
    Guard.SLIPS: (("robustness",), ("more", "drop"), ("more", "ci")),
}
"""Where the evaluation keeps what a guard asks for: its part, the loss in it, and that one's interval."""


def measured_ruling(guard: Guard, part: Any, loss: Sequence[str], ci: Sequence[str], margin: float) -> Ruling:
    interval = _part(part, ci)
    most = _number(interval[1]) if isinstance(interval, Sequence) and len(interval) == 2 else None
    n = _part(part, ("n",))
    return judge_measured(guard, _number(_part(part, loss)), most, n if isinstance(n, int) else 0, margin)


def _part(found: Any, path: Sequence[str]) -> Any:
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def served_ruling(found: Any) -> Ruling:
    """Engine and PyTorch must agree: else what was evaluated is not what clients would meet."""
    served = found if isinstance(found, Mapping) else {}
    values = [_number(served.get(key)) for key in ("served", "pytorch", "difference", "tolerance")]
    if not served.get("n") or None in values or not isinstance(served.get("agrees"), bool):
        return Ruling(Decision.HOLD, (str(served.get("reason", "The engines were not asked.")),))
    mean, pytorch, difference, tolerance = values
    told = (
        f"Through the engines {mean:.1%}, in PyTorch {pytorch:.1%} on {served['n']} rows; they differ by "
        f"{difference:.1%} a row, {tolerance:.1%} are allowed (retrain.served_tolerance)"
    )
    failed = f"; {served['failed']} more requests failed" if served.get("failed") else ""
    return Ruling(Decision.PROMOTE if served["agrees"] else Decision.REJECT, (f"{told}{failed}.",))


def triggers_ruling(found: Any) -> Ruling:
    """Suspected triggers must have been asked about; what they decide is for a person to judge (`trigger_doubts`)."""
    if not isinstance(found, list) or not all(isinstance(_part(one, ("decides",)), bool) for one in found):
        return Ruling(Decision.HOLD, ("The candidate was not asked about suspected triggers.",))
    deciding = sum(one["decides"] for one in found)
    return Ruling(Decision.PROMOTE, (f"Of {len(found)} suspected triggers {deciding or 'none'} may decide a reply.",))


def evaluation_doubts(job: Job, settings: Settings) -> Sequence[str]:
    """Why a person must agree to the candidate, whatever `promotion.mode` is."""
    return trigger_doubts(_part(job.result, ("evaluation", "triggers"))) if settings.retrain.check_labels else ()


def trigger_doubts(found: Any) -> Sequence[str]:
    """One for each phrase that decides the candidate's reply against all else in a request, and not the champion's.

    It may be planted, or the very words by which a new class is known: 'cancel the reservation' is as decisive.
    """
    return tuple(
        f"A person must agree: the phrase {one.get('phrase')!r} makes the candidate say {one.get('target')!r} in "
        f"{one.get('followed')} of {one.get('asked')} requests that ask for something else, and {one.get('rows')} "
        "labelled rows have it; see who sent them."
        for one in (found if isinstance(found, list) else ())
        if _part(one, ("decides",)) is True
    )


def judge_ruling(found: Any, margin: float) -> Ruling:
    """The judge may not prefer the champion more often than the candidate by more than the margin."""
    judged = found if isinstance(found, Mapping) else {}
    net = _number(judged.get("net_wins"))
    if not judged.get("n") or net is None:
        return Ruling(Decision.HOLD, ("The judge has compared nothing.",))
    told = (
        f"The judge preferred the candidate on {judged.get('wins')} and the champion on {judged.get('losses')} of "
        f"{judged['n']} rows ({judged.get('failed')} failed, {judged.get('contradicted')} contradicted)"
    )
    if judged.get("failed") == judged["n"]:
        return Ruling(Decision.HOLD, (f"{told}.",))
    return Ruling(Decision.REJECT if net < -margin else Decision.PROMOTE, (f"{told}, margin {margin:.1%}.",))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
