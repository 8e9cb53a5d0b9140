"""The verdict: alarms at the declared rate, reasons, and the impact gate."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.drift import (
    DriftPolicy,
    Evidence,
    Kind,
    Quality,
    Score,
    Verdict,
    check_rate,
    compare_quality,
    detector_rate,
    judge,
    quality_score,
)
from service.core.window import Sizes

SIZES = Sizes(500, 200)
POLICY = DriftPolicy(SIZES, 10_000, min_labelled=20, quality_drop=0.05, require_quality_loss=True)
LOST = Quality(0.93, 300, 0.61, 100)
KEPT = Quality(0.93, 300, 0.92, 100)


def scored(name: str, score: float, threshold: float = 0.2, kind: Kind = Kind.INPUT) -> Score:
    return Score(name, kind, score, threshold, f"{name} moved.")


CALM, WILD = scored("prompt_words", 0.1), scored("embedding", 0.9)


def test_no_alarm_is_stable_and_names_the_nearest_detector() -> None:
    judgement = judge([CALM, scored("reply", 0.15)], Evidence(labelled=LOST), SIZES, POLICY)
    assert judgement.verdict is Verdict.STABLE
    assert judgement.reasons == ("None of 2 detectors alarms; the nearest is reply at 75% of its threshold.",)
    assert not judgement.retrain


def test_drift_that_costs_quality_asks_for_retraining_and_says_the_loss_first() -> None:
    judgement = judge([CALM, WILD, scored("reply", 0.3)], Evidence(labelled=LOST), SIZES, POLICY)
    assert (judgement.verdict, judgement.retrain) == (Verdict.DRIFTED, True)
    assert judgement.reasons[0].startswith(
        "Quality fell from 93.0% to 61.0% (100 labelled requests). A loss of at least"
    )
    assert judgement.reasons[1:] == ("embedding moved.", "reply moved.")


def test_drift_that_costs_nothing_is_reported_and_not_acted_on() -> None:
    judgement = judge([WILD], Evidence(labelled=KEPT), SIZES, POLICY)
    assert (judgement.verdict, judgement.retrain) == (Verdict.DRIFTED, False)
    assert judgement.reasons[0] == "embedding moved."
    assert "A loss of more than 5.0% is not credible." in judgement.reasons[1]


def test_labels_outrank_the_estimate() -> None:
    assert not judge([WILD], Evidence(labelled=KEPT, estimated=LOST), SIZES, POLICY).retrain
    assert judge([WILD], Evidence(labelled=LOST, estimated=KEPT), SIZES, POLICY).retrain


def test_without_labels_the_estimate_decides() -> None:
    judgement = judge([WILD], Evidence(estimated=LOST), SIZES, POLICY)
    assert judgement.retrain
    assert judgement.reasons[0].startswith("Quality, estimated from the model's confidence, fell from 93.0% to 61.0%")
    assert not judge([WILD], Evidence(estimated=KEPT), SIZES, POLICY).retrain


def test_unknown_quality_is_said_and_does_not_retrain() -> None:
    judgement = judge([WILD], Evidence(), SIZES, POLICY)
    assert (judgement.verdict, judgement.retrain) == (Verdict.DRIFTED, False)
    assert "fewer than 20 labelled requests" in judgement.reasons[1]


def test_the_operator_may_retrain_on_drift_alone() -> None:
    judgement = judge([WILD], Evidence(labelled=KEPT), SIZES, replace(POLICY, require_quality_loss=False))
    assert judgement.retrain


def test_a_loss_of_quality_alone_is_drift() -> None:
    loss = quality_score("feedback_score", Kind.QUALITY, LOST, rate=0.001)
    judgement = judge([CALM, loss], Evidence(labelled=LOST), SIZES, POLICY)
    assert (judgement.verdict, judgement.retrain, len(judgement.reasons)) == (Verdict.DRIFTED, True, 1)
    gain = quality_score("feedback_score", Kind.QUALITY, Quality(0.6, 300, 0.95, 100), rate=0.001)
    assert judge([CALM, gain], Evidence(labelled=LOST), SIZES, POLICY).verdict is Verdict.STABLE


def test_a_small_loss_may_alarm_without_a_case_for_retraining() -> None:
    small = Quality(0.97, 5000, 0.93, 5000)
    judgement = judge([quality_score("q", Kind.QUALITY, small, 0.001)], Evidence(labelled=small), SIZES, POLICY)
    assert (judgement.verdict, judgement.retrain) == (Verdict.DRIFTED, False)


@pytest.mark.parametrize(
    ("sizes", "scores"),
    [(Sizes(0, 0), [WILD]), (Sizes(499, 200), [WILD]), (Sizes(500, 199), [CALM]), (Sizes(500, 0), [])],
)
def test_small_windows_are_inconclusive(sizes: Sizes, scores: list[Score]) -> None:
    judgement = judge(scores, Evidence(labelled=LOST), sizes, POLICY)
    assert (judgement.verdict, judgement.retrain) == (Verdict.INCONCLUSIVE, False)
    assert "still filling" in judgement.reasons[0]


def test_an_alarm_does_not_wait_for_the_current_window() -> None:
    judgement = judge([WILD], Evidence(labelled=LOST), Sizes(500, 30), POLICY)
    assert (judgement.verdict, judgement.retrain) == (Verdict.DRIFTED, True)


odd = st.sampled_from([math.nan, math.inf, -math.inf])


@given(score=odd | st.floats(), threshold=odd | st.floats(max_value=0.0))
def test_what_is_not_a_number_never_alarms(score: float, threshold: float) -> None:
    broken = [scored("a", score, threshold), scored("b", math.nan), scored("c", math.inf)]
    assert judge(broken, Evidence(labelled=LOST), SIZES, POLICY).verdict is Verdict.INCONCLUSIVE
    assert judge([*broken, CALM], Evidence(labelled=LOST), SIZES, POLICY).verdict is Verdict.STABLE
    assert math.isnan(broken[1].ratio)


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0.01, 2))), st.booleans(), st.booleans())
def test_retraining_is_only_ever_asked_for_on_drift(found: list[tuple[float, float]], lost: bool, strict: bool) -> None:
    scores = [scored(f"d{i}", score, threshold) for i, (score, threshold) in enumerate(found)]
    policy = replace(POLICY, require_quality_loss=strict)
    judgement = judge(scores, Evidence(labelled=LOST if lost else KEPT), SIZES, policy)
    assert judgement.retrain == (any(s > t for s, t in found) and (lost or not strict))
    assert judgement.retrain <= (judgement.verdict is Verdict.DRIFTED)
    assert judgement.reasons


@pytest.mark.parametrize(
    ("fresh", "every", "rate"), [(50, 10_000, 0.0005), (0, 10_000, 0.00001), (9999, 10_000, 0.002), (200, 10, 0.5)]
)
def test_a_checks_windows_take_a_tenth_of_the_declared_rate(fresh: int, every: int, rate: float) -> None:
    assert check_rate(fresh, replace(POLICY, false_alarm_every=every)) == pytest.approx(rate)


def test_detectors_share_the_rate() -> None:
    assert detector_rate(0.01, 10) == pytest.approx(0.001)
    assert detector_rate(0.01, 0) == 0.01


def test_quality_leaves_out_what_is_not_a_number_and_asks_for_enough() -> None:
    scores = [1.0, math.nan, 0.0, 1.0]
    assert compare_quality(scores, [1.0, 0.0, 0.0], least=3) == Quality(2 / 3, 3, 1 / 3, 3)
    assert compare_quality(scores, [1.0, 0.0, 0.0], least=4) is None
    assert compare_quality([], [], least=0) is None


@pytest.mark.parametrize(("p", "rate"), [(0.95, 0.001), (0.8, 0.0003), (0.5, 0.01)])
def test_the_quality_detector_keeps_its_rate_exactly_computed(p: float, rate: float) -> None:
    before, after = 300, 100
    chance = 0.0
    for right_before in range(before + 1):
        weight = _binomial(right_before, before, p)
        if weight < 1e-9:
            continue
        for right in range(after + 1):
            if not quality_score(
                "q", Kind.QUALITY, Quality(right_before / before, before, right / after, after), rate
            ).alarm:
                break
            chance += weight * _binomial(right, after, p)
    assert 0.4 * rate < chance < 1.15 * rate


counted = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counted, counted, st.floats(0.5, 0.999999))
def test_the_margin_is_a_number_and_grows_with_confidence(
    before: tuple[int, int], after: tuple[int, int], confidence: float
) -> None:
    quality = Quality(before[0] / before[1], before[1], after[0] / after[1], after[1])
    assert 0 <= quality.margin(confidence) <= math.sqrt(2) + 1e-9
    assert quality.margin(confidence) <= quality.margin(0.9999999) + 1e-9


def _binomial(k: int, n: int, p: float) -> float:
    return math.exp(
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
    )
