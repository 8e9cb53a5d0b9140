"""From alarm to actor, out of a cycle's events."""

from __future__ import annotations

from typing import Any

from service.core.lineage import explanation, lineage
from service.core.records import Event

RESULT = {
    "adapter": "support@b",
    "digest": "b" * 64,
    "manifest": {
        "dataset": {"digest": "d" * 64, "train": ["r1", "r2"], "heldout": ["r3"]},
        "settings": {"seed": 7, "rank": 16},
        "job": {"onset": 5.0},
        "code": "0.1.0+abc",
    },
    "evaluation": {"golden": {"n": 10}, "heldout": {"all": {"n": 20}}},
}
SHADOW = {"pairs": 40, "champion_mean": 0.5, "candidate_mean": 0.9, "evidence": 23.0, "needed": 20.0, "decision": "x"}


def event(number: int, kind: str, actor: str = "controller", **evidence: Any) -> Event:
    return Event(number, float(number), kind, actor, f"{kind}!", "support", "c1", evidence)


def test_a_promotion_from_alarm_to_actor() -> None:
    facts = lineage(
        [
            event(1, "cycle.open", trigger="drift", drift={"check": "d9", "scores": []}),
            event(2, "cycle.training", job_id="c1-job"),
            event(3, "adapter.added", digest="b" * 64),
            event(4, "cycle.shadowing", job=RESULT),
            event(5, "cycle.approved", "ann"),
            event(6, "cycle.promoting", shadow=SHADOW),
            event(7, "alias.promoted"),
        ]
    )
    assert list(facts) == [
        "alarm", "data", "training", "candidate", "evaluation", "verdict", "approved", "promoted",
    ]  # fmt: skip
    assert facts["alarm"] == {"trigger": "drift", "reason": "cycle.open!", "by": "controller", "drift_check": "d9"}
    assert facts["data"] == {"digest": "d" * 64, "train": 2, "heldout": 1}
    assert facts["training"] == {"job": {"onset": 5.0}, "settings": {"seed": 7, "rank": 16}, "code": "0.1.0+abc"}
    assert facts["candidate"] == {"name": "support@b", "digest": "b" * 64}
    assert facts["evaluation"] == {"reason": "cycle.shadowing!", "golden": {"n": 10}, "heldout": {"n": 20}}
    assert facts["verdict"]["pairs"] == 40
    assert facts["approved"] == {"by": "ann", "at": 5.0}
    assert facts["promoted"] == {"by": "controller", "at": 7.0, "reason": "alias.promoted!"}


def test_facts_that_nobody_told_are_left_out() -> None:
    assert lineage([]) == {}
    told = lineage([event(1, "cycle.open", trigger="person"), event(2, "cycle.rejected"), event(3, "cycle.shadowing")])
    assert list(told) == ["alarm", "evaluation", "verdict"]
    assert told["alarm"] == {"trigger": "person", "reason": "cycle.open!", "by": "controller"}
    assert "rolled_back" in lineage([event(4, "alias.rolled_back", "ann")])
    odd = lineage([event(1, "cycle.shadowing", job={"manifest": "gone", "evaluation": {"heldout": 3}})])
    assert odd == {"evaluation": {"reason": "cycle.shadowing!"}}


def test_a_decision_explains_itself_in_one_paragraph() -> None:
    evaluation = {
        "golden": {"champion": 0.955, "candidate": 0.95, "n": 120},
        "heldout": {"all": {"champion": None, "candidate": 0.9, "n": 84}},
    }
    events = [
        Event(1, 1.0, "cycle.open", "controller", "Quality fell from 92.8% to 51.5%", "support", "c1",
              {"trigger": "drift", "drift": {"check": "d9"}}),
        event(2, "cycle.shadowing", job=RESULT | {"evaluation": evaluation}),
        Event(3, 3.0, "cycle.promoting", "controller", "evidence 23.4 reaches 20.0.", "support", "c1", {}),
        event(4, "alias.promoted", "ann"),
        Event(5, 5.0, "alias.rolled_back", "bob", "customers complain", "support", "c1", {}),
    ]  # fmt: skip
    assert explanation(lineage(events)) == (
        "controller opened the cycle (drift): Quality fell from 92.8% to 51.5%. It learned from 2 requests, 1 held out "
        "with seed 7. On the golden set: 95.5% → 95.0% (120 examples). On held-out requests: unknown → 90.0% "
        "(84 examples). Verdict: evidence 23.4 reaches 20.0. ann promoted it. bob rolled it back: customers complain."
    )
    assert explanation({}) == ""
    assert explanation({"data": {"digest": "d"}}) == ("It learned from an unknown number of requests, none held out.")
