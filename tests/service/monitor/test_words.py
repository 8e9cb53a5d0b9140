"""Unseen words: their number, and what it says of so many words, each request beside all reference requests but one."""

from __future__ import annotations

import numpy as np
import pytest

from service.monitor.words import Vocabulary, words

REFERENCE = ("Where is my parcel?", "Where is my order H2789?", "Cancel my order")


def test_what_has_a_digit_is_one_word_for_each_order_number_would_be_new() -> None:
    assert words("Order H2789, due 3rd May 2026") == ["order", "0", "due", "0", "may", "0"]


def test_words_that_no_other_request_has_are_counted() -> None:
    short, long = Vocabulary(REFERENCE).unseen(["fly Oslo", "where is my order and where is my parcel fly Oslo"]).count
    assert short == 2
    assert long == 3  # and, fly, oslo


def test_as_many_of_fewer_words_say_more() -> None:
    short, long, known = Vocabulary(REFERENCE).unseen(["fly Oslo", "is my order fly Oslo", "is my order"]).evidence
    assert short > long > known


@pytest.mark.parametrize("slip", ["parce", "parcell", "parcek", "pracel"])
def test_a_word_one_slip_away_from_a_seen_one_is_misspelled_not_new(slip: str) -> None:
    _, count = Vocabulary(REFERENCE).unseen(["", f"Where is my {slip}?"]).count
    assert count == 0


def test_a_misspelled_word_says_less_than_a_new_one_and_more_than_a_seen_one() -> None:
    new, slip, seen = Vocabulary(REFERENCE).unseen(["my flight", "my parcek", "my parcel"] * 2).evidence[[3, 1, 5]]
    assert new > slip > seen


def test_a_seen_word_short_of_a_letter_counts_as_seen() -> None:
    _, short, seen = Vocabulary(REFERENCE).unseen(["", "my parce", "my order"]).evidence
    assert short == seen


def test_short_words_are_not_taken_for_each_other() -> None:
    assert Vocabulary(["the car", "the car"]).unseen(["the cat"]).count == 1


def test_a_slip_in_the_only_other_request_that_has_the_word_is_new() -> None:
    assert Vocabulary(["my parcel", "my order"]).within().count.tolist() == [1.0, 1.0]
    assert Vocabulary(["my parcel", "my parcek"]).within().count.tolist() == [0.0, 0.0]


def test_a_reference_request_is_no_witness_for_itself() -> None:
    assert Vocabulary(REFERENCE).within().count.tolist() == [1.0, 1.0, 1.0]  # parcel, 0, cancel
    twice = Vocabulary([*REFERENCE, REFERENCE[0]]).within()
    assert twice.count.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_a_later_request_is_held_against_as_many_as_a_reference_request_was() -> None:
    found = Vocabulary(REFERENCE).unseen(list(REFERENCE))
    assert found.count.tolist() == [1.0, 1.0, 1.0]  # each without its own twin, which was left out in turn


def test_a_text_without_words_is_unknown_not_calm() -> None:
    found = Vocabulary(REFERENCE).unseen(["", "?!"])
    assert np.isnan([found.count, found.evidence]).all()


def test_a_reference_of_strange_texts_has_a_rate_below_one() -> None:
    found = Vocabulary(["a b", "c d"]).unseen(["a b", "e f"])
    assert np.isfinite(found.evidence).all()


def test_of_an_endless_word_only_its_beginning_is_read() -> None:
    assert words("a" * 1_000_000) == ["a" * 8000]
