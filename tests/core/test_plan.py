"""The planner as a truth table: what is seen → what is done."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.core import steps
from service.core.cycle import TERMINAL, CycleState, Trigger
from service.core.freeze import parse_freeze
from service.core.plan import desired_adapters, load_order, plan, removable
from service.core.promotion import Decision, Ruling
from service.core.records import Alias, Cycle, DriftCheck, Job, JobPhase, JobStatus
from service.core.steps import Mode, Observed, PlanPolicy

NOW = 1000.0
POLICY = PlanPolicy(
    Mode.AUTO,
    cooldown_s=60.0,
    max_failures=3,
    stale_after_s=30.0,
    max_attempts=2,
    min_new_examples=50,
    max_wait_s=600.0,
)
DAILY = replace(POLICY, every_s=600.0, min_examples=40)
FROZEN = replace(POLICY, freezes=(parse_freeze("00:00-01:00"),))
"""`NOW` is a quarter past midnight."""

ALIAS = Alias("support", reference_since=100.0)
NEW = "support@0123456789ab"
CHECK = DriftCheck("d1", "support", 900.0, "DRIFTED", (), ("quality fell",), 300, 100, retrain=True)


def cycle(state: CycleState, **changes: object) -> Cycle:
    opened = Cycle("c1", "support", state, Trigger.DRIFT, "drift", 900.0, 900.0, 900.0, candidate=NEW, job_id="j1")
    return replace(opened, **changes)  # type: ignore[arg-type]


def job(status: JobStatus, **changes: object) -> Job:
    made = Job("j1", "c1", "support", status, 900.0, 990.0, heartbeat_at=990.0, attempts=1, result={"adapter": NEW})
    return replace(made, **changes)  # type: ignore[arg-type]


def ruling(decision: Decision) -> Ruling:
    return Ruling(decision, (f"because {decision}",), 50, 0.5, 0.9, 25.0, 20.0)


PASS, HOLD, REJECT = ruling(Decision.PROMOTE), ruling(Decision.HOLD), ruling(Decision.REJECT)


STEPPED = replace(POLICY, canary=(0.05, 0.5))
SECOND = cycle(CycleState.CANARY, evidence={"canary": {"step": 1}})


@pytest.mark.parametrize(
    ("seen", "policy", "expected"),
    [
        pytest.param(Observed(ALIAS), POLICY, [], id="no drift, nothing to do"),
        pytest.param(Observed(ALIAS, drift=CHECK), POLICY, [steps.OpenCycle], id="drift opens"),
        pytest.param(Observed(ALIAS, drift=replace(CHECK, verdict="STABLE")), POLICY, [], id="stable"),
        pytest.param(Observed(ALIAS, drift=replace(CHECK, retrain=False)), POLICY, [], id="drift that costs nothing"),
        pytest.param(Observed(ALIAS, drift=replace(CHECK, at=99.0)), POLICY, [], id="drift against an older champion"),
        pytest.param(Observed(ALIAS, drift=CHECK), replace(POLICY, mode=Mode.MANUAL), [], id="manual opens nothing"),
        pytest.param(Observed(replace(ALIAS, latched=True), drift=CHECK), POLICY, [], id="latched"),
        pytest.param(
            Observed(replace(ALIAS, failures=3), drift=CHECK), POLICY, [steps.Latch], id="third failure latches"
        ),
        pytest.param(
            Observed(ALIAS, drift=CHECK, last=cycle(CycleState.REJECTED, closed_at=950.0)),
            POLICY,
            [],
            id="older than the last end",
        ),
        pytest.param(
            Observed(ALIAS, drift=replace(CHECK, at=999.0), last=cycle(CycleState.REJECTED, closed_at=950.0)),
            POLICY,
            [],
            id="cooling down",
        ),
        pytest.param(
            Observed(ALIAS, drift=replace(CHECK, at=950.0), last=cycle(CycleState.DONE, closed_at=930.0)),
            POLICY,
            [steps.OpenCycle],
            id="cooled down",
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.OPEN), new_examples=49),
            POLICY,
            [steps.NoteExamples],
            id="too little is labelled to learn from",
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.OPEN), new_examples=50),
            POLICY,
            [steps.NoteExamples, steps.StartJob],
            id="enough is labelled",
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.OPEN, opened_at=NOW - 600.0)),
            POLICY,
            [steps.NoteExamples, steps.StartJob],
            id="waited long enough",
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.OPEN, trigger=Trigger.PERSON)),
            POLICY,
            [steps.NoteExamples, steps.StartJob],
            id="a person does not want to wait",
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.OPEN), new_examples=50, busy=["other"]),
            POLICY,
            [steps.NoteExamples, steps.NoteWait],
            id="enough is labelled, and another alias trains",
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.OPEN), new_examples=49, busy=["other"]),
            POLICY,
            [steps.NoteExamples],
            id="it waits for labels, whoever trains",
        ),
        pytest.param(Observed(ALIAS, cycle(CycleState.TRAINING)), POLICY, [steps.Close], id="training without a job"),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.TRAINING), job=job(JobStatus.RUNNING, phase=JobPhase.TRAINING)),
            POLICY,
            [],
            id="training",
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.TRAINING), job=job(JobStatus.RUNNING, phase=JobPhase.EVALUATING)),
            POLICY,
            [steps.Advance],
            id="trained",
        ),
        pytest.param(
            Observed(
                ALIAS, cycle(CycleState.TRAINING), job=job(JobStatus.RUNNING, heartbeat_at=900.0, updated_at=900.0)
            ),
            POLICY,
            [steps.RelaunchJob],
            id="silent job is launched again",
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.TRAINING), job=job(JobStatus.QUEUED, created_at=0.0, updated_at=950.0)),
            POLICY,
            [steps.Close],
            id="nobody begins the job",
        ),
        pytest.param(
            Observed(
                ALIAS,
                cycle(CycleState.TRAINING),
                job=job(
                    JobStatus.QUEUED,
                    created_at=0.0,
                    updated_at=900.0,
                    heartbeat_at=None,
                    detail={"queued_at": 900.0},
                ),
            ),
            POLICY,
            [steps.RelaunchJob],
            id="begun once, died, and not begun again yet",
        ),
        pytest.param(
            Observed(
                ALIAS,
                cycle(CycleState.TRAINING),
                job=job(JobStatus.RUNNING, heartbeat_at=900.0, updated_at=900.0, attempts=2),
            ),
            POLICY,
            [steps.Close],
            id="silent job without attempts left",
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.TRAINING), job=job(JobStatus.FAILED, error="disk full")),
            POLICY,
            [steps.Close],
            id="failed job",
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.EVALUATING), job=job(JobStatus.SUCCEEDED), golden=PASS, heldout=PASS),
            POLICY,
            [steps.StartShadow],
            id="evaluated",
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.EVALUATING), job=job(JobStatus.SUCCEEDED), golden=REJECT, heldout=PASS),
            POLICY,
            [steps.Close],
            id="golden set lost",
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.EVALUATING), job=job(JobStatus.SUCCEEDED), golden=None, heldout=PASS),
            POLICY,
            [steps.Close],
            id="no golden evidence",
        ),
        pytest.param(
            Observed(
                ALIAS, cycle(CycleState.EVALUATING), job=job(JobStatus.SUCCEEDED, result={}), golden=PASS, heldout=PASS
            ),
            POLICY,
            [steps.Close],
            id="success without an adapter",
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.SHADOWING), shadow=HOLD), POLICY, [steps.NoteShadow], id="shadow holds"
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.SHADOWING), shadow=PASS),
            POLICY,
            [steps.NoteShadow, steps.Advance],
            id="shadow proves",
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.SHADOWING), shadow=PASS, guards=(PASS, REJECT)),
            POLICY,
            [steps.NoteShadow, steps.Close],
            id="a guard fails what is proven",
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.SHADOWING), shadow=PASS, guards=(PASS, HOLD)),
            POLICY,
            [steps.NoteShadow],
            id="a guard is not passed yet",
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.SHADOWING), shadow=PASS),
            replace(POLICY, mode=Mode.APPROVE),
            [steps.NoteShadow, steps.AskPerson],
            id="approval is awaited",
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.SHADOWING, evidence={"approved": {"by": "ann"}}), shadow=PASS),
            replace(POLICY, mode=Mode.APPROVE),
            [steps.NoteShadow, steps.Advance],
            id="approved",
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.SHADOWING, evidence={"doubts": ["Why?"]}), shadow=PASS),
            POLICY,
            [steps.NoteShadow, steps.AskPerson],
            id="a doubt is for a person in every mode",
        ),
        pytest.param(
            Observed(
                ALIAS,
                cycle(CycleState.SHADOWING, evidence={"doubts": ["Why?"], "approved": {"by": "ann"}}),
                shadow=PASS,
            ),
            POLICY,
            [steps.NoteShadow, steps.Advance],
            id="a doubt that a person has taken",
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.SHADOWING), shadow=PASS),
            STEPPED,
            [steps.NoteShadow, steps.Advance],
            id="proven goes to its first clients",
        ),
        pytest.param(Observed(ALIAS, cycle(CycleState.CANARY)), STEPPED, [], id="the canary is not loaded everywhere"),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.CANARY), resident=True), STEPPED, [steps.SetCanary], id="the first step"
        ),
        pytest.param(
            Observed(replace(ALIAS, canary_ratio=0.05), cycle(CycleState.CANARY), resident=True),
            STEPPED,
            [],
            id="no ruling yet",
        ),
        pytest.param(
            Observed(replace(ALIAS, canary_ratio=0.05), cycle(CycleState.CANARY), resident=True, canary=HOLD),
            STEPPED,
            [steps.NoteCanary],
            id="the step goes on",
        ),
        pytest.param(
            Observed(replace(ALIAS, canary_ratio=0.05), cycle(CycleState.CANARY), resident=True, canary=PASS),
            STEPPED,
            [steps.NoteCanary, steps.SetCanary],
            id="the next step",
        ),
        pytest.param(
            Observed(replace(ALIAS, canary_ratio=0.5), SECOND, resident=True, canary=PASS),
            STEPPED,
            [steps.NoteCanary, steps.Advance],
            id="the last step is over",
        ),
        pytest.param(
            Observed(replace(ALIAS, canary_ratio=0.5), SECOND, resident=True, canary=PASS),
            replace(STEPPED, freezes=FROZEN.freezes),
            [steps.NoteWait],
            id="the last step is over in a freeze",
        ),
        pytest.param(
            Observed(replace(ALIAS, canary_ratio=0.05), cycle(CycleState.CANARY), resident=True, canary=REJECT),
            STEPPED,
            [steps.NoteCanary, steps.Close],
            id="clients find it worse",
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.CANARY)), POLICY, [steps.Advance], id="the steps were taken away"
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.SHADOWING), shadow=REJECT),
            POLICY,
            [steps.NoteShadow, steps.Close],
            id="shadow refutes",
        ),
        pytest.param(Observed(ALIAS, cycle(CycleState.PROMOTING)), POLICY, [], id="waits until resident"),
        pytest.param(Observed(ALIAS, cycle(CycleState.PROMOTING), resident=True), POLICY, [steps.Flip], id="flips"),
        pytest.param(
            Observed(replace(ALIAS, champion=NEW), cycle(CycleState.PROMOTING), resident=True),
            POLICY,
            [steps.Advance],
            id="crashed after the flip",
        ),
        pytest.param(
            Observed(replace(ALIAS, champion=NEW), cycle(CycleState.WATCHING), watch=REJECT),
            POLICY,
            [steps.RollBack],
            id="regression",
        ),
        pytest.param(
            Observed(replace(ALIAS, champion=NEW), cycle(CycleState.WATCHING), watch=HOLD), POLICY, [], id="watching"
        ),
        pytest.param(
            Observed(replace(ALIAS, champion=NEW), cycle(CycleState.WATCHING), watch=PASS),
            POLICY,
            [steps.Close],
            id="done",
        ),
        pytest.param(Observed(ALIAS, cycle(CycleState.WATCHING)), POLICY, [steps.Close], id="replaced by hand"),
        pytest.param(
            Observed(ALIAS, new_examples=500), replace(POLICY, labels=500), [steps.OpenCycle], id="labels open"
        ),
        pytest.param(Observed(ALIAS, new_examples=499), replace(POLICY, labels=500), [], id="too few labels"),
        pytest.param(Observed(ALIAS, new_examples=40), DAILY, [steps.OpenCycle], id="the calendar opens"),
        pytest.param(Observed(ALIAS, new_examples=39), DAILY, [], id="nothing new to learn from"),
        pytest.param(
            Observed(ALIAS, new_examples=40, last=cycle(CycleState.DONE, closed_at=NOW - 599.0)),
            DAILY,
            [],
            id="not yet due again",
        ),
        pytest.param(
            Observed(replace(ALIAS, failures=3, latched=True), new_examples=40),
            DAILY,
            [],
            id="latched for the calendar",
        ),
        pytest.param(Observed(ALIAS, drift=CHECK, opened_today=24), POLICY, [], id="as many cycles as a day may have"),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.OPEN, trigger=Trigger.LABELS)),
            POLICY,
            [steps.NoteExamples, steps.StartJob],
            id="what was labelled is there already",
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.SHADOWING), shadow=PASS),
            FROZEN,
            [steps.NoteShadow, steps.NoteWait],
            id="frozen",
        ),
        pytest.param(
            Observed(ALIAS, cycle(CycleState.SHADOWING), shadow=REJECT),
            FROZEN,
            [steps.NoteShadow, steps.Close],
            id="a refusal needs no promotion",
        ),
        pytest.param(
            Observed(replace(ALIAS, champion=NEW), cycle(CycleState.WATCHING), watch=REJECT),
            FROZEN,
            [steps.RollBack],
            id="a rollback is never frozen",
        ),
    ],
)
def test_plan(seen: Observed, policy: PlanPolicy, expected: list[type]) -> None:
    assert [type(action) for action in plan(seen, policy, NOW)] == expected


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_an_ended_cycle_asks_for_nothing(state: CycleState) -> None:
    assert plan(Observed(ALIAS, cycle(state)), POLICY, NOW) == []


def test_a_flip_is_never_planned_without_shadow_evidence() -> None:
    for golden in (None, PASS, HOLD, REJECT):
        for shadow in (None, HOLD, REJECT):
            seen = Observed(ALIAS, cycle(CycleState.SHADOWING), resident=True, golden=golden, shadow=shadow)
            actions = plan(seen, POLICY, NOW)
            assert not any(isinstance(a, steps.Flip) for a in actions)
            assert not any(isinstance(a, steps.Advance) for a in actions)


@pytest.mark.parametrize(
    ("gate", "then"), [(PASS, steps.StartShadow), (HOLD, CycleState.FAILED), (REJECT, CycleState.REJECTED)]
)
def test_every_gate_of_an_evaluation_must_be_passed(gate: Ruling, then: object) -> None:
    seen = Observed(
        ALIAS, cycle(CycleState.EVALUATING), job=job(JobStatus.SUCCEEDED), golden=PASS, heldout=PASS,
        gates=[("served", PASS), ("judge's", gate)],
    )  # fmt: skip
    (action,) = plan(seen, POLICY, NOW)
    assert then in (type(action), getattr(action, "to", None))


def test_desired_adapters_hold_champion_previous_and_candidates() -> None:
    aliases = [Alias("a", champion="a@111111111111", previous="a@222222222222"), Alias("b", candidate="b@333333333333")]
    open_cycle = cycle(CycleState.EVALUATING)
    ended = cycle(CycleState.DONE, candidate="x@444444444444")
    jobs = [
        job(JobStatus.RUNNING, detail={"adapter": "a@999999999999"}),
        job(JobStatus.FAILED, detail={"adapter": "x"}),
    ]
    jobs += [job(JobStatus.RUNNING, detail={"step": 3})]
    desired = desired_adapters(aliases, [open_cycle, ended], jobs)
    assert desired == {"a@111111111111", "a@222222222222", "b@333333333333", "a@999999999999", NEW}


def test_unloading_waits_for_the_drain() -> None:
    resident, desired = {"a", "b", "c"}, frozenset({"a"})
    assert removable(resident, desired, {"b": 10.0, "c": 35.0}, now=40.0, drain_s=30.0) == {"b"}
    assert removable(resident, desired, {}, now=40.0, drain_s=30.0) == frozenset()


def test_champions_are_loaded_last_so_that_an_engine_gives_up_others_first() -> None:
    aliases = [Alias("a", champion="a@1"), Alias("b", champion="b@2", previous="b@1")]
    assert load_order({"b@2", "a@1", "b@1", "a@0"}, aliases) == ["a@0", "b@1", "a@1", "b@2"]
