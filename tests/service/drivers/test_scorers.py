"""Scorers by import path: found, bounded, and told what is wrong with them."""

from __future__ import annotations

import logging
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
from sacrebleu import BLEU

from service.core.errors import ConfigError
from service.core.scoring import score as core_score
from service.drivers.plugins import load_function
from service.drivers.scorers import check_scorers, score, score_or_none
from service.settings import AliasSettings, Settings

MODULE = "scorers_of_the_owner"


@pytest.fixture(autouse=True)
def owner() -> Iterator[Any]:
    module: Any = types.ModuleType(MODULE)
    module.first_letter = lambda reply, expected: float(reply[:1] == expected[:1])
    module.fails = lambda reply, expected: 1 / 0
    module.not_a_share = lambda reply, expected: {"nan": float("nan"), "two": 2.0}.get(reply, "much")
    module.number = 3
    sys.modules[MODULE] = module
    load_function.cache_clear()
    yield module
    del sys.modules[MODULE]


def test_a_function_judges_a_reply_by_its_target() -> None:
    assert score(f"{MODULE}:first_letter", "refund", "return", None) == 1.0
    assert score(f"{MODULE}:first_letter", "refund", "invoice", 1.0) == 0.0


def test_a_rating_needs_no_function() -> None:
    assert score(f"{MODULE}:fails", "x", None, -1.0) == 0.0
    assert score(f"{MODULE}:fails", "x", None, None) is None


@pytest.mark.parametrize("reply", ["nan", "two", "three"])
def test_what_is_no_share_is_an_error(reply: str) -> None:
    with pytest.raises(ConfigError, match="from 0"):
        score(f"{MODULE}:not_a_share", reply, "x", None)


def test_live_replies_on_which_it_fails_have_no_score_and_the_log_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert [score_or_none(f"{MODULE}:fails", "x", "y", None) for _ in range(3)] == [None] * 3
    assert caplog.text.count("ZeroDivisionError") == 1


@pytest.mark.parametrize(
    ("path", "told"),
    [("no_such_module_here:f", "PYTHONPATH"), (f"{MODULE}:absent", "no function"), (f"{MODULE}:number", "no function")],
)
def test_one_that_is_not_there_is_told_at_the_start(path: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_scorers(Settings(aliases={"support": AliasSettings(scorer=path)}))


def test_bleu_is_sacrebleus() -> None:
    pairs = [
        ("the cat is on the mat", "there is a cat on the mat"),
        ("yes", "yes it is"),
        ("a b c d e f", "a b d c e f g"),
    ]
    theirs = BLEU(tokenize="none", effective_order=True)
    for reply, expected in pairs:
        assert core_score("bleu", reply, expected, None) == pytest.approx(
            theirs.sentence_score(reply, [expected]).score / 100
        )
