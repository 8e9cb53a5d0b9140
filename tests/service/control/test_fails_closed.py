"""Evidence that is missing, empty, stale, not a number, about something else, or made of errors holds: 500 cases, over
a real store where it is traffic. Nothing of it may promote, and nothing may break the controller's tick."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.control.evidence import (
    canary_ruling,
    golden_ruling,
    heldout_ruling,
    plan_policy,
    promotion_policy,
    shadow_ruling,
)
from service.core.cycle import CycleState, Trigger
from service.core.plan import plan
from service.core.promotion import Decision
from service.core.records import Alias, Capture, Cycle, Feedback, Job, JobStatus, ShadowReply
from service.core.steps import Observed
from service.drivers.store import SqlStore, open_store
from service.settings import PromotionSettings, Settings

OLD, NEW, OTHER = (f"support@{letter * 12}" for letter in "abc")
SINCE = 1_000.0
SETTINGS = Settings(promotion=PromotionSettings(canary=(0.5,)))
POLICY = promotion_policy(SETTINGS)
calm = settings(
    max_examples=350, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)

junk = (
    st.none() | st.text(max_size=3) | st.lists(st.none(), max_size=1) | st.dictionaries(st.text(max_size=2), st.none())
)
no_share = st.sampled_from([math.nan, math.inf, -math.inf, -0.1, 1.1, 1e300, None, "", "much", []])
no_count = st.sampled_from([0, -3, math.nan, math.inf, None, "", "many", [], 0.5])
share, count = st.floats(0.0, 1.0), st.integers(1, 1000)


@st.composite
def unusable(draw: st.DrawFn) -> Any:
    """What stands where a comparison of two means on n examples should."""
    whole = {"champion": draw(share), "candidate": draw(share), "n": draw(count)}
    wrong = draw(st.sampled_from(["gone", "junk", "lacks", "champion", "candidate", "n"]))
    if wrong == "gone":
        return None
    if wrong == "junk":
        return draw(junk)
    if wrong == "lacks":
        del whole[draw(st.sampled_from(sorted(whole)))]
        return whole
    return whole | {wrong: draw(no_count if wrong == "n" else no_share)}


def job_with(result: Mapping[str, Any]) -> Job:
    return Job("j1", "c1", "support", JobStatus.SUCCEEDED, SINCE, SINCE, result={"adapter": NEW, **result})


GOOD = {"champion": 0.9, "candidate": 0.95, "n": 100}


@calm
@given(unusable(), st.booleans(), st.booleans())
def test_an_evaluation_that_says_nothing_holds_and_the_cycle_ends_without_a_promotion(
    found: Any, of_golden: bool, whole: bool
) -> None:
    evaluation: Any = {
        "golden": found if of_golden else GOOD,
        "heldout": {"all": GOOD if of_golden else found} if whole or of_golden else found,
    }
    job = job_with({"evaluation": evaluation})
    golden, heldout = golden_ruling(job, POLICY), heldout_ruling(job)
    assert (golden if of_golden else heldout).decision is Decision.HOLD
    cycle = Cycle("c1", "support", CycleState.EVALUATING, Trigger.DRIFT, "x", 0.0, 0.0, 0.0, job_id="j1")
    seen = Observed(Alias("support"), cycle, job=job, golden=golden, heldout=heldout)
    (action,) = plan(seen, plan_policy(SETTINGS), SINCE)
    assert action.to is CycleState.FAILED  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as one:
        yield one


@pytest.fixture(scope="module")
def traffic(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlStore]:
    path: Path = tmp_path_factory.mktemp("store") / "trimtab.db"
    store = runner.run(open_store(f"sqlite+aiosqlite:///{path}", migrate=True))
    yield store
    runner.run(store.close())


faults = st.sampled_from(
    ["stale", "other candidate", "other champion", "by the candidate", "shadow failed", "shadow refused",
     "client failed", "no label", "only rated", "no shadow"]
)  # fmt: skip
_numbers = iter(range(10**9))


@settings(calm, max_examples=150)
@given(rows=st.lists(faults, max_size=40))
def test_live_evidence_that_says_nothing_holds(rows: list[str], runner: asyncio.Runner, traffic: SqlStore) -> None:
    """Each row would be a clear case for the candidate if it were not for its fault; more rows than `min_pairs`."""
    name = f"a{next(_numbers)}"
    captures, labels, shadows = [], [], []
    for i, fault in enumerate(rows):
        request_id, at = f"{name}-{i}", SINCE + 1.0 + i
        at = SINCE - 100.0 + i / 100 if fault == "stale" else at
        by = {"other champion": OTHER, "by the candidate": NEW}.get(fault, OLD)
        broken = fault == "client failed"
        prompt = ({"role": "user", "content": "?"},)
        captures.append(
            Capture(
                request_id,
                at,
                name,
                by,
                "e",
                prompt,
                "wrong",
                502 if broken else 200,
                0.1,
                error="x" if broken else None,
            )
        )
        if fault != "no label":
            expected = {"only rated": None}.get(fault, "right")
            rating = -1.0 if fault == "only rated" else None
            labels.append(Feedback(f"f-{request_id}", request_id, at, rating, expected))
        if fault != "no shadow":
            who = OTHER if fault == "other candidate" else NEW
            status = {"shadow failed": 504, "shadow refused": 400}.get(fault, 200)
            error = "x" if status != 200 else None
            shadows.append(ShadowReply(request_id, who, at, "right", status, 0.1, error=error))

    async def rule() -> Decision:
        await traffic.add_captures(captures)
        await traffic.add_feedback(labels)
        await traffic.add_shadow_replies(shadows)
        alias = Alias(name, OLD, candidate=NEW, canary_ratio=0.5)
        cycle = Cycle("c1", name, CycleState.SHADOWING, Trigger.DRIFT, "x", 0.0, 0.0, SINCE, candidate=NEW,
                      evidence={"canary": {"since": SINCE, "share": 0.5}})  # fmt: skip
        shadow = await shadow_ruling(traffic, alias, cycle, SETTINGS.alias(name), POLICY, SINCE + 100.0)
        step = await canary_ruling(traffic, alias, cycle, SETTINGS, SINCE + 100.0)
        assert step is not None
        assert step.decision is not Decision.PROMOTE
        return shadow.decision

    assert runner.run(rule()) is Decision.HOLD
