"""The cycle's life as a literal table: a missing entry is the illegal transition."""

from __future__ import annotations

from enum import StrEnum

from service.core.errors import IllegalTransition


class CycleState(StrEnum):
    """Where one improvement attempt of one alias stands."""

    OPEN = "open"
    TRAINING = "training"
    EVALUATING = "evaluating"
    SHADOWING = "shadowing"
    CANARY = "canary"
    PROMOTING = "promoting"
    WATCHING = "watching"
    DONE = "done"
    REJECTED = "rejected"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"


class Trigger(StrEnum):
    """What opened a cycle."""

    DRIFT = "drift"
    PERSON = "person"
    SCHEDULE = "schedule"
    ALERT = "alert"
    LABELS = "labels"


_S = CycleState

TRANSITIONS: dict[CycleState, frozenset[CycleState]] = {
    _S.OPEN: frozenset({_S.TRAINING, _S.FAILED, _S.ROLLED_BACK}),
    _S.TRAINING: frozenset({_S.EVALUATING, _S.REJECTED, _S.FAILED, _S.ROLLED_BACK}),
    _S.EVALUATING: frozenset({_S.SHADOWING, _S.REJECTED, _S.FAILED, _S.ROLLED_BACK}),
    _S.SHADOWING: frozenset({_S.CANARY, _S.PROMOTING, _S.REJECTED, _S.FAILED, _S.ROLLED_BACK}),
    _S.CANARY: frozenset({_S.PROMOTING, _S.REJECTED, _S.FAILED, _S.ROLLED_BACK}),
    _S.PROMOTING: frozenset({_S.WATCHING, _S.FAILED, _S.ROLLED_BACK}),
    _S.WATCHING: frozenset({_S.DONE, _S.ROLLED_BACK}),
    _S.DONE: frozenset(),
    _S.REJECTED: frozenset(),
    _S.FAILED: frozenset(),
    _S.ROLLED_BACK: frozenset(),
}

TERMINAL = frozenset(state for state, following in TRANSITIONS.items() if not following)


def check_transition(before: CycleState, after: CycleState) -> None:
    """Raise IllegalTransition unless the table allows `before` → `after`."""
    if after not in TRANSITIONS[before]:
        allowed = ", ".join(sorted(TRANSITIONS[before])) or "nothing: the cycle has ended"
        raise IllegalTransition(f"A cycle that is {before} cannot become {after}; allowed: {allowed}.")
