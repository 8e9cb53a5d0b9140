"""Scorers: known values, bounds, and what cannot be judged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.scoring import score

KINDS = ["exact", "classification", "json", "regex", "rouge_l", "chrf", "bleu"]


@pytest.mark.parametrize(
    ("kind", "reply", "expected", "value"),
    [
        ("exact", " refund ", "refund", 1.0),
        ("exact", "Refund", "refund", 0.0),
        ("json", '{"a": 1, "b": 2}', '{"b": 2, "a": 1}', 1.0),
        ("json", '{"a": 1, "b": 3}', '{"a": 1, "b": 2}', 0.5),
        ("json", '{"a": 1}', '{"a": 1, "b": 2}', 0.5),
        ("json", "no json", '{"a": 1}', 0.0),
        ("json", "[1]", "[1]", 1.0),
        ("json", "{}", "{}", 1.0),
        ("json", "NaN", "NaN", 1.0),
        ("json", "[" * 100_000, '{"a": 1}', 0.0),
        ("rouge_l", "the cat sat", "the cat sat", 1.0),
        ("rouge_l", "the cat sat", "a dog ran", 0.0),
        ("rouge_l", "the cat sat", "the big cat", 2 / 3),
        ("rouge_l", "", "a", 0.0),
        ("chrf", "same words", "same words", 1.0),
        ("chrf", "abc", "xyz", 0.0),
        ("chrf", "", "", 1.0),
        ("classification", ' "Refund".', "refund", 1.0),
        ("classification", "return  item", "Return item", 1.0),
        ("classification", "refunds", "refund", 0.0),
        ("bleu", "the cat sat on the mat", "the cat sat on the mat", 1.0),
        ("bleu", "a dog", "the cat", 0.0),
        ("bleu", "", "a", 0.0),
        ("bleu", "", "", 1.0),
        ("bleu", "the cat", "the cat sat on", 0.36787944),
        ("bleu", "the cat is on the mat", "there is a cat on the mat", 0.2905925408),
    ],
)
def test_known_values(kind: str, reply: str, expected: str, value: float) -> None:
    assert score(kind, reply, expected, None) == pytest.approx(value)


@pytest.mark.parametrize(
    ("rating", "value"), [(1.0, 1.0), (-1.0, 0.0), (0.0, 0.5), (7.0, 1.0), (float("nan"), None), (None, None)]
)
def test_a_rating_counts_where_no_target_came(rating: float | None, value: float | None) -> None:
    assert score("exact", "x", None, rating) == value


def test_a_target_outranks_a_rating() -> None:
    assert score("exact", "x", "y", 1.0) == 0.0


def test_regex_needs_no_target() -> None:
    assert score("regex", "order 12", None, None, r"order \d+") == 1.0
    assert score("regex", "order x", None, None, r"order \d+") == 0.0


def test_an_unknown_scorer_is_an_error() -> None:
    with pytest.raises(ValueError, match="no scorer"):
        score("bleurt", "a", "b", None)


@given(st.sampled_from(KINDS), st.text(), st.text())
def test_scores_stay_in_bounds_and_equality_is_perfect(kind: str, reply: str, expected: str) -> None:
    value = score(kind, reply, expected, None)
    assert value is not None
    assert 0.0 <= value <= 1.0 + 1e-12
    assert score(kind, expected, expected, None) == pytest.approx(1.0)
