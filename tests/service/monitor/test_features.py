"""What is measured of a request, and what may be shown of it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from service.core.records import Feedback, Labelled
from service.monitor.features import COLUMNS, asked, measure
from service.monitor.scrub import scrub
from tests.service.monitor.traffic import capture_of


def test_a_request_is_measured() -> None:
    capture = capture_of("r", 1.0, "to be or not to be, 42?", "refund", confidence=math.log(0.5))
    found = measure([Labelled(capture, Feedback("f", "r", 1.0, expected=" refund"))], "exact", None)
    assert {name: float(values[0]) for name, values in found.columns.items()} == pytest.approx(
        {
            "prompt_chars": 23.0, "prompt_words": 7.0, "prompt_tokens": 15.0, "prompt_non_alphabetic": 4 / 17,
            "prompt_word_variety": 6 / 7, "reply_chars": 6.0, "reply_words": 1.0, "reply_tokens": 1.0,
            "confidence": 0.5,
            "refusal": 0.0,
        }
    )  # fmt: skip
    assert found.scores.tolist() == [1.0]


def test_a_rating_stands_in_for_a_target_and_a_missing_score_is_no_number() -> None:
    capture = capture_of("r", 1.0, "hi", "hello", confidence=None)
    rows = [
        Labelled(capture, None), Labelled(capture, Feedback("f", "r", 1.0, rating=-1.0)),
        Labelled(capture, Feedback("f", "r", 1.0)),
    ]  # fmt: skip
    found = measure(rows, "exact", None)
    assert np.isnan(found.scores).tolist() == [True, False, True]
    assert found.scores[1] == 0.0
    assert np.isnan(found.columns["confidence"]).all()


@pytest.mark.parametrize("confidence", [math.nan, math.inf, -math.inf, 5.0])
def test_odd_confidences_stay_within_0_and_1_or_are_missing(confidence: float) -> None:
    capture = replace(capture_of("r", 1.0, "", "", confidence=None), confidence=confidence)
    found = measure([Labelled(capture, None)], "exact", None)
    value = found.columns["confidence"][0]
    assert math.isnan(value) if not math.isfinite(confidence) else 0.0 <= value <= 1.0
    assert np.isnan(found.columns["prompt_word_variety"][0])


def test_no_requests_have_no_features() -> None:
    assert {len(column) for column in measure([], "exact", None).columns.values()} == {0}
    assert set(measure([], "exact", None).columns) == set(COLUMNS)


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        (
            [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b"},
            ],
            "a",
        ),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], "b"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}, "x"]}], "a"),
        ([{"role": "user", "content": None}], ""),
        ([{"role": "system", "content": "s"}], ""),
        ([], ""),
    ],
)
def test_what_is_asked_is_the_newest_user_message(messages: list[dict[str, object]], text: str) -> None:
    assert asked(messages) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("write to ann.lee+x@mail.example.org now", "write to [e-mail] now"),
        ("call +44 (0)20 7946-0958 today", "call [phone] today"),
        ("order 123456 of\n\n9 items", "order [number] of 9 items"),
        ("see https://example.org/a?token=b ok", "see [link] ok"),
        ("a" * 100, "a" * 79 + "…"),
    ],
)
def test_examples_are_scrubbed(text: str, shown: str) -> None:
    assert scrub(text) == shown
