"""What the planner sees, what it may decide, and by which rules: data only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from service.core.cycle import CycleState, Trigger
from service.core.freeze import Freeze
from service.core.promotion import Ruling
from service.core.records import Alias, Cycle, DriftCheck, Job


class Mode(StrEnum):
    """How much the loop may do alone: all of it, all but the flip, or nothing."""

    AUTO = "auto"
    APPROVE = "approve"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class PlanPolicy:
    """`every_s` and `labels` open cycles without drift: so long after the last one, if `min_examples` requests were
    labelled since, and after so many labelled requests.

    `max_cycles_per_day` bounds what cycles that nobody asked for may train; `freezes` are when nothing is promoted.
    """

    mode: Mode
    cooldown_s: float
    max_failures: int
    stale_after_s: float
    max_attempts: int
    min_new_examples: int
    max_wait_s: float
    min_examples: int = 1
    every_s: float | None = None
    labels: int | None = None
    max_cycles_per_day: int = 24
    freezes: Sequence[Freeze] = ()
    start_timeout_s: float = 900.0
    canary: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Observed:
    """One alias as the controller sees it now.

    `resident` tells whether the open cycle's candidate is verified on every ready engine; `locked` why the adapter that
    its job made was rolled back before; `new_examples` how many requests were labelled since the onset, while a cycle
    waits, and since the last cycle or promotion, while none is open; `opened_today` how many cycles were opened in the
    last 24 hours; `busy` the aliases whose jobs leave no room for another, while a cycle waits; `golden`, `heldout`,
    `shadow` with its `guards`, `canary` and `watch` are the rulings on the evidence that the cycle's state asks for,
    None where it asks for none; `gates` are those beyond golden set and held-out rows that the evaluation must pass, by
    name; `doubts` what in it no gate decides, so that a person must.
    """

    alias: Alias
    cycle: Cycle | None = None
    last: Cycle | None = None
    drift: DriftCheck | None = None
    job: Job | None = None
    resident: bool = False
    locked: str | None = None
    new_examples: int = 0
    opened_today: int = 0
    busy: Sequence[str] = ()
    golden: Ruling | None = None
    heldout: Ruling | None = None
    shadow: Ruling | None = None
    guards: Sequence[Ruling] = ()
    canary: Ruling | None = None
    watch: Ruling | None = None
    gates: Sequence[tuple[str, Ruling]] = ()
    doubts: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class OpenCycle:
    trigger: Trigger
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NoteExamples:
    """Keep with the cycle how much of the new traffic is labelled, so that people see what it waits for."""

    labelled: int
    needed: int


@dataclass(frozen=True, slots=True)
class StartJob:
    """Queue a job for the cycle, launch it, and go on to training."""


@dataclass(frozen=True, slots=True)
class RelaunchJob:
    """The job's process is gone: launch it again under the same id."""

    reason: str


@dataclass(frozen=True, slots=True)
class Advance:
    to: CycleState
    reason: str


@dataclass(frozen=True, slots=True)
class StartShadow:
    """`doubts` are why a person must agree to its promotion, whatever the mode."""

    candidate: str
    reason: str
    doubts: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class NoteShadow:
    """Keep the running comparison with the cycle, so that people can follow it."""

    ruling: Ruling
    guards: Sequence[Ruling] = ()


@dataclass(frozen=True, slots=True)
class SetCanary:
    """Let the candidate answer this share of the clients; `step` counts from 0."""

    step: int
    share: float
    reason: str


@dataclass(frozen=True, slots=True)
class NoteCanary:
    """Keep the guards' latest ruling with the cycle."""

    ruling: Ruling


@dataclass(frozen=True, slots=True)
class NoteWait:
    """Tell people what the cycle still waits for, though it has what it needs."""

    reason: str


@dataclass(frozen=True, slots=True)
class AskPerson:
    """Tell people that a proven candidate waits for their yes."""

    reason: str


@dataclass(frozen=True, slots=True)
class Flip:
    candidate: str
    reason: str


@dataclass(frozen=True, slots=True)
class RollBack:
    reason: str


@dataclass(frozen=True, slots=True)
class Close:
    """End the cycle; an outcome other than `done` counts towards the latch."""

    to: CycleState
    reason: str


@dataclass(frozen=True, slots=True)
class Latch:
    reason: str


Action = (
    OpenCycle
    | NoteExamples
    | StartJob
    | RelaunchJob
    | Advance
    | StartShadow
    | NoteShadow
    | SetCanary
    | NoteCanary
    | NoteWait
    | AskPerson
    | Flip
    | RollBack
    | Close
    | Latch
)
