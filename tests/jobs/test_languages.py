"""Rows in other languages are left out where they clearly tell theirs, and counted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from retrain_jobs.dataset import build
from retrain_jobs.examples import Reason
from retrain_jobs.languages import check_languages, foreign
from retrain_jobs.options import Options
from service.core.errors import ConfigError
from service.core.records import Labelled
from service.settings import RetrainSettings
from tests.jobs.rows import labelled
from tests.jobs.test_privacy import example

OPTIONS = Options(min_examples=4, max_examples=1000, replay_ratio=0.5, holdout_ratio=0.2, seed=0)

ENGLISH = [
    "where is the parcel that I ordered",
    "please send me another copy of my invoice",
    "i lost my card",
]
GERMAN = ["wo ist das Paket, das ich letzte Woche bestellt habe", "bitte schicken Sie mir die Rechnung noch einmal"]
FRENCH = ["où est le colis que j'ai commandé", "je voudrais voir ma facture"]
UNCLEAR = ["ok", "refund", "?", "RMA-4432", "12345"]


def test_what_is_clearly_in_another_language_is_left_out_and_counted() -> None:
    rows = [labelled(f"r{n}", text, "parcel") for n, text in enumerate([*ENGLISH, *GERMAN, *FRENCH])]
    made = build(rows, [], (), replace(OPTIONS, languages=("en", "fr")))
    said = {row.prompt[-1].content for row in (*made.train, *made.heldout)}
    assert said == {*ENGLISH, *FRENCH}
    assert made.dropped == {Reason.OTHER_LANGUAGE: len(GERMAN)}
    assert made.looked_at == len(rows)


def test_without_languages_all_stay() -> None:
    assert foreign([example(text) for text in (*ENGLISH, *GERMAN)], ()) == []


@pytest.mark.parametrize("text", UNCLEAR)
def test_what_does_not_tell_its_language_stays(text: str) -> None:
    assert foreign([example(text)], ("en",)) == []


def test_the_newest_user_message_tells() -> None:
    mixed: Labelled = labelled(
        "r", "", "parcel",
        prompt=[
            {"role": "user", "content": ENGLISH[0]}, {"role": "assistant", "content": GERMAN[0]},
            {"role": "user", "content": ENGLISH[1]}, {"role": "system", "content": GERMAN[1]},
        ],
    )  # fmt: skip
    made = build([mixed], [], (), replace(OPTIONS, languages=("en",)))
    assert len(made.train) + len(made.heldout) == 1


def test_a_code_that_nobody_can_tell_is_refused_with_those_that_are() -> None:
    check_languages(["en", "de"])
    with pytest.raises(ConfigError, match=r"'xx' is not among .*\bde\b.*\ben\b"):
        check_languages(["en", "xx"])


def test_a_language_by_name_is_refused_by_the_settings() -> None:
    with pytest.raises(ValueError, match="ISO 639"):
        RetrainSettings(languages=("English",))
