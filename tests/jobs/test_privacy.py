"""Personal data is replaced by made-up values of the same shape."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain_jobs.examples import Example, Slice, to_example
from retrain_jobs.privacy import is_card, is_iban, scrub
from tests.jobs.rows import calm, labelled


def example(text: str, target: str = "ok", request_id: str = "r1") -> Example:
    made = to_example(labelled(request_id, text, target), Slice.NEW)
    assert isinstance(made, Example)
    return made


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("mail me at bob+shop@mail.co.uk today", "email"),
        ("call +1 415-555-2671 now", "phone"),
        ("call (020) 7946 0958 now", "phone"),
        ("call 0170 123 4567.", "phone"),
        ("call +491701234567", "phone"),
        ("card 4111 1111 1111 1111 please", "card"),
        ("card 5500-0000-0000-0004", "card"),
        ("pay to DE89 3704 0044 0532 0130 00 please", "iban"),
        ("GB29NWBK60161331926819", "iban"),
    ],
)
def test_each_kind_is_found_and_keeps_its_shape(text: str, kind: str) -> None:
    clean, counts = scrub(example(text))
    after = clean.prompt[0].content
    assert counts == {kind: 1}
    assert after != text
    if kind != "email":
        assert re.sub(r"\d", "0", after) == re.sub(r"\d", "0", text)
    if kind == "iban":
        assert is_iban(re.sub(r"pay to | please", "", after))
    if kind == "card":
        assert is_card("".join(c for c in after if c.isdigit()))


@pytest.mark.parametrize(
    "text",
    [
        "order 48213 came on 2024-12-31 10:30 late",
        "order 4821-9931 cost 129.99 on 31.12.2024",
        "I bought 2 of them for 15 euros",
        "card 4111 1111 1111 1112 is no card number",
        "at @home, v1.2.3",
        "GB28NWBK60161331926819 is no account",
    ],
)
def test_other_numbers_stay(text: str) -> None:
    assert scrub(example(text)) == (example(text), {})


def test_one_value_has_one_stand_in_within_a_row_and_others_elsewhere() -> None:
    text = "a@b.example and c@d.example and a@b.example"
    clean, counts = scrub(example(text, "a@b.example"))
    first, second, third = clean.prompt[0].content.split(" and ")
    assert first == third == clean.target != second
    assert counts == {"email": 2}
    assert scrub(example(text, request_id="r2"))[0].prompt != clean.prompt
    assert scrub(example(text, "a@b.example")) == (clean, counts)


@calm
@given(st.text(max_size=80), st.text(min_size=1, max_size=40).filter(str.strip))
def test_any_text_survives_with_its_other_characters(text: str, target: str) -> None:
    made = to_example(labelled("r", f"q {text}", target), Slice.NEW)
    assert isinstance(made, Example)
    clean, counts = scrub(made)
    if not counts:
        assert clean == made
