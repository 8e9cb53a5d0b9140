"""Personal data is replaced by made-up values of the same shape."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain_jobs.examples import Example, Slice, to_example
from retrain_jobs.options import Options
from retrain_jobs.preferences import prepare
from retrain_jobs.privacy import is_card, is_iban, scrub
from service.core.errors import ConfigError
from service.drivers.plugins import check_finders, load_function
from service.settings import Recipe, RetrainSettings, Settings
from tests.jobs.rows import calm, labelled

MODULE = "finders_of_the_owner"
NAMES = f"{MODULE}:names"


@pytest.fixture(autouse=True)
def owner() -> Iterator[None]:
    module: Any = types.ModuleType(MODULE)
    module.names = lambda text: re.findall(r"(?<=I am )[A-Z]\w+(?: [A-Z]\w+)?|(?<=account )K-\d+", text)
    module.fails = lambda text: 1 / 0
    module.one_string = lambda text: "Ada"
    module.numbers = lambda text: [1, 2]
    module.all = lambda text: [text, "", "  ", "not in there"]
    sys.modules[MODULE] = module
    load_function.cache_clear()
    yield
    load_function.cache_clear()
    del sys.modules[MODULE]


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


def test_what_the_owners_function_finds_is_replaced_wherever_it_stands_in_the_row() -> None:
    row = example("I am Ada Lovelace, account K-4711, not Adah. Call Ada Lovelace.", "Dear Ada Lovelace")
    clean, counts = scrub(row, [NAMES])
    said = clean.prompt[0].content
    found = re.fullmatch(r"I am ([A-Z][a-z]+ [A-Z][a-z]+), account K-(\d{4}), not Adah\. Call \1\.", said)
    assert found
    assert "Ada Lovelace" not in said + clean.target
    assert found[2] != "4711"
    assert clean.target == f"Dear {found[1]}"
    assert counts == {"found": 2}
    assert scrub(row, [NAMES]) == (clean, counts)
    assert scrub(row) == (row, {})


def test_a_name_never_stands_for_itself() -> None:
    for number in range(200):
        clean, _ = scrub(example("I am Alex, hello", request_id=f"r{number}"), [NAMES])
        assert "Alex" not in clean.prompt[0].content


def test_replies_that_were_turned_down_are_scrubbed_by_it_too() -> None:
    options = Options(4, 100, 0.5, 0.5, 0, recipe=Recipe.DPO_LORA, personal=(NAMES,))
    rows = [
        labelled(
            f"r{n}", f"I am Ada Lovelace with question {'abcdefgh'[n] * 9}", f"answer {n}", reply="Dear Ada Lovelace"
        )
        for n in range(8)
    ]
    made = prepare(rows, [], (), options)
    assert made.rejected
    assert made.judged_rejected
    for row in (*made.train, *made.heldout, *made.rejected, *made.judged_rejected):
        assert "Ada" not in row.target + row.prompt[0].content


@pytest.mark.parametrize("function", ["fails", "numbers", "one_string"])
def test_a_function_that_fails_ends_the_job_and_says_which(function: str) -> None:
    with pytest.raises(ConfigError, match=f"{MODULE}:{function} failed"):
        scrub(example("I am Ada"), [f"{MODULE}:{function}"])


@calm
@given(st.text(max_size=80))
def test_a_function_may_find_anything(text: str) -> None:
    made = to_example(labelled("r", f"q {text}", "ok"), Slice.NEW)
    assert isinstance(made, Example)
    scrub(made, [f"{MODULE}:all"])


def test_one_that_is_not_there_is_told_at_the_start() -> None:
    with pytest.raises(ConfigError, match="no function 'absent'"):
        check_finders(Settings(retrain=RetrainSettings(personal=(f"{MODULE}:absent",))))
    with pytest.raises(ValueError, match="no import path"):
        RetrainSettings(personal=("names",))
