"""Near twins are found exactly as brute force finds them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain_jobs.examples import Turn
from retrain_jobs.likeness import NearIndex, normalise, prompt_key
from tests.jobs.rows import calm

texts = st.text(alphabet="abc ", min_size=1, max_size=25)


def shingles(text: str, size: int) -> set[str]:
    return {text[i : i + size] for i in range(max(1, len(text) - size + 1))}


@calm
@given(st.lists(texts, max_size=15), texts, st.sampled_from([0.5, 0.7, 0.9, 1.0]), st.sampled_from([2, 5]))
def test_the_index_agrees_with_brute_force(kept: list[str], text: str, threshold: float, size: int) -> None:
    mine = shingles(text, size)
    expected = any(len(mine & shingles(k, size)) / len(mine | shingles(k, size)) >= threshold for k in kept)
    assert (text in NearIndex(kept, threshold=threshold, size=size)) is expected


@pytest.mark.parametrize("text", ["Where's my ORDER?!", "where s my order", " where-s  my_order "])
def test_case_punctuation_and_spacing_do_not_matter(text: str) -> None:
    assert normalise(text) == "where s my order"


def test_a_text_of_signs_alone_is_itself() -> None:
    assert normalise(" ??? ") == "???"
    assert normalise("!!!") != normalise("???")


def test_roles_keep_prompts_apart() -> None:
    assert prompt_key([Turn("user", "hi")]) == prompt_key([Turn("user", "Hi!")])
    assert prompt_key([Turn("user", "hi")]) != prompt_key([Turn("system", "hi")])
