"""Gates of an evaluation: what they let pass, and that missing evidence never does."""

from __future__ import annotations

import math
from typing import Any

import pytest

from service.control.evaluated import evaluation_gates, judge_ruling, served_ruling, trigger_doubts, triggers_ruling
from service.core.guards import Guard
from service.core.promotion import Decision
from service.core.records import Job, JobStatus
from service.settings import AliasSettings, JudgeSettings, RetrainSettings, Settings

SERVED = {"n": 48, "failed": 0, "served": 0.9, "pytorch": 0.92, "difference": 0.02, "tolerance": 0.1, "agrees": True}
UNASKED = RetrainSettings(served_rows=0, check_labels=False)
JUDGED = {"n": 50, "wins": 20, "losses": 5, "failed": 1, "contradicted": 4, "net_wins": 0.3}


def test_agreement_passes_and_disagreement_rejects_with_its_numbers() -> None:
    assert served_ruling(SERVED).decision is Decision.PROMOTE
    ruling = served_ruling(SERVED | {"served": 0.4, "difference": 0.52, "agrees": False, "failed": 2})
    assert ruling.decision is Decision.REJECT
    for told in ("40.0%", "92.0%", "52.0%", "retrain.served_tolerance", "2 more requests failed"):
        assert told in ruling.reasons[0]


@pytest.mark.parametrize(
    "found",
    [None, "gone", [], {}, {"n": 0, "reason": "Of 2 ready engines 0 had loaded it."}, SERVED | {"n": None},
     SERVED | {"difference": math.nan}, SERVED | {"agrees": "yes"}, {k: SERVED[k] for k in ("n", "agrees")}],
)  # fmt: skip
def test_no_evidence_of_the_engines_holds(found: Any) -> None:
    ruling = served_ruling(found)
    assert ruling.decision is Decision.HOLD
    assert ruling.reasons[0] in {"The engines were not asked.", "Of 2 ready engines 0 had loaded it."}


def test_a_judge_may_prefer_the_champion_by_no_more_than_the_margin() -> None:
    assert judge_ruling(JUDGED, 0.1).decision is Decision.PROMOTE
    assert judge_ruling(JUDGED | {"net_wins": -0.1}, 0.1).decision is Decision.PROMOTE
    assert judge_ruling(JUDGED | {"net_wins": -0.12}, 0.1).decision is Decision.REJECT


@pytest.mark.parametrize("found", [None, {"n": 0}, JUDGED | {"net_wins": math.nan}, JUDGED | {"failed": 50}])
def test_a_judge_that_said_nothing_holds(found: Any) -> None:
    assert judge_ruling(found, 0.1).decision is Decision.HOLD


HARMLESS = {"phrase": "may", "target": "refund", "rows": 2, "asked": 12, "followed": 1, "decides": False}
PLANTED = HARMLESS | {"phrase": "xyzzy", "followed": 11, "decides": True}


def test_a_phrase_that_decides_replies_is_named_for_a_person_to_judge() -> None:
    assert triggers_ruling([]).decision is triggers_ruling([HARMLESS]).decision is Decision.PROMOTE
    assert triggers_ruling([HARMLESS, PLANTED]).decision is Decision.PROMOTE
    assert trigger_doubts([]) == trigger_doubts([HARMLESS]) == ()
    (doubt,) = trigger_doubts([HARMLESS, PLANTED])
    assert "'xyzzy' makes the candidate say 'refund' in 11 of 12" in doubt


@pytest.mark.parametrize("found", [None, "", "gone", {}, [None], [HARMLESS, {}], [HARMLESS | {"decides": "no"}]])
def test_who_was_not_asked_about_triggers_holds(found: Any) -> None:
    assert triggers_ruling(found).decision is Decision.HOLD


def test_the_settings_say_what_is_asked_for() -> None:
    job = Job(
        "j", "c", "support", JobStatus.SUCCEEDED, 0.0, 0.0, result={"evaluation": {"served": SERVED, "triggers": []}}
    )
    judge = JudgeSettings(url="http://judge/v1", model="m", margin=0.1)
    told = AliasSettings(judge=judge)
    assert [name for name, _ in evaluation_gates(job, Settings(), "support")] == ["served", "triggers'"]
    asked = Settings(aliases={"support": told})
    assert [(name, r.decision) for name, r in evaluation_gates(job, asked, "support")] == [
        ("served", Decision.PROMOTE), ("triggers'", Decision.PROMOTE), ("judge's", Decision.HOLD),
    ]  # fmt: skip
    only_told = Settings(aliases={"support": AliasSettings(judge=judge.model_copy(update={"margin": None}))})
    assert len(evaluation_gates(job, only_told, "support")) == 2
    assert evaluation_gates(job, Settings(retrain=UNASKED), "support") == []


@pytest.mark.parametrize(
    ("evaluation", "decision"),
    [
        ({"served": {"ttft": {"n": 40, "longer": 0.1, "ci": [-0.1, 0.3]}}}, Decision.PROMOTE),
        ({"served": {"ttft": {"n": 40, "longer": 0.1, "ci": [-0.1, 0.6]}}}, Decision.REJECT),
        ({"served": {"ttft": {"n": 0}}}, Decision.HOLD),
        ({"served": {"ttft": {"n": 40, "longer": 0.1, "ci": "narrow"}}}, Decision.HOLD),
        ({"served": "gone"}, Decision.HOLD),
    ],
)
def test_the_time_to_the_first_token_is_a_guard(evaluation: dict[str, Any], decision: Decision) -> None:
    asked = Settings(aliases={"support": AliasSettings(guards={Guard.TTFT: 0.5})}, retrain=UNASKED)
    job = Job("j", "c", "support", JobStatus.SUCCEEDED, 0.0, 0.0, result={"evaluation": evaluation})
    ((name, ruling),) = evaluation_gates(job, asked, "support")
    assert (name, ruling.decision) == ("ttft", decision)


def test_slips_are_a_guard() -> None:
    asked = Settings(aliases={"support": AliasSettings(guards={Guard.SLIPS: 0.2})}, retrain=UNASKED)
    robust = {"n": 48, "more": {"drop": 0.05, "ci": [-0.02, 0.12]}}
    job = Job("j", "c", "support", JobStatus.SUCCEEDED, 0.0, 0.0, result={"evaluation": {"robustness": robust}})
    ((_, ruling),) = evaluation_gates(job, asked, "support")
    assert ruling.decision is Decision.PROMOTE
    assert ruling.reasons == ("slips: +5.0% (at most +12.0%) on 48 rows, allowed +20.0%.",)
