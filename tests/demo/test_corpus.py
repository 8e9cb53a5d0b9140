"""The corpus keeps its promises: same seed same text, splits apart, targets well-formed, customers imperfect."""

import json
from collections import Counter
from random import Random

import pytest

from demo.corpus import NOVEL, TAUGHT, Intent, Split, Task, drill, example, novel, taught
from demo.corpus.grammar import expand
from demo.corpus.noise import roughen, slip
from demo.corpus.slots import SLOTS, value


def test_same_seed_same_examples() -> None:
    assert taught(7, 50, Split.TRAIN) == taught(7, 50, Split.TRAIN)
    assert novel(7, 50, Split.HELD) == novel(7, 50, Split.HELD)
    assert taught(7, 50, Split.TRAIN) != taught(8, 50, Split.TRAIN)


def test_texts_hardly_ever_repeat() -> None:
    texts = {request.text for request in taught(1, 10_000, Split.TRAIN)}
    assert len(texts) > 9_800
    assert len({request.text for request in novel(1, 2_000, Split.TRAIN)}) > 1_850


def test_every_intent_is_asked_about_equally() -> None:
    counts = Counter(request.intent for request in taught(1, 6_000, Split.TRAIN))
    assert counts.keys() == {intent.name for intent in TAUGHT}
    assert min(counts.values()) > 140


@pytest.mark.parametrize("intent", TAUGHT + NOVEL, ids=lambda intent: intent.name)
def test_held_out_phrasings_are_not_in_training(intent: Intent) -> None:
    rng = Random(intent.name)
    spoken = {
        split: {
            expand(pattern, rng)
            for pattern in intent.phrases(split).asks + intent.phrases(split).says
            for _ in range(300)
        }
        for split in Split
    }
    assert not spoken[Split.TRAIN] & spoken[Split.HELD]


def test_held_out_values_are_not_in_training() -> None:
    rng = Random(0)
    for slot in ("name", "city", "product"):
        drawn = {split: {value(slot, split, rng) for _ in range(5_000)} for split in Split}
        assert not drawn[Split.TRAIN] & drawn[Split.HELD]


def test_taught_and_novel_share_no_intent_and_no_text() -> None:
    assert not {intent.name for intent in TAUGHT} & {intent.name for intent in NOVEL}
    known = {request.text for request in taught(1, 5_000, Split.TRAIN)}
    assert not known & {request.text for request in novel(1, 5_000, Split.TRAIN)}


@pytest.mark.parametrize("split", Split)
def test_extractions_are_json_whose_values_stand_in_the_text(split: Split) -> None:
    for request in taught(1, 1_000, split, Task.EXTRACT):
        found = json.loads(request.target)
        assert found
        assert list(found) == [slot for slot in SLOTS if slot in found]
        assert all(text in request.text for text in found.values())


def test_replies_are_filled_in() -> None:
    for request in taught(1, 2_000, Split.TRAIN, Task.REPLY):
        assert request.target.endswith((".", "?"))
        assert "{" not in request.text + request.target


def test_drills_repeat_the_request() -> None:
    assert all(request.target == request.text for request in drill(1, 100))


def test_a_request_is_a_system_and_a_user_message() -> None:
    request = example(TAUGHT[0], Task.INTENT, Split.TRAIN, Random(0))
    assert [message["role"] for message in request.messages] == ["system", "user"]
    assert request.messages[1]["content"] == request.text


def test_many_requests_are_mistyped_but_never_in_a_slot() -> None:
    rng = Random(0)
    clean = "Please cancel the purchase of order {order} today."
    rough = [roughen(clean, rng) for _ in range(1_000)]
    assert all("{order}" in text for text in rough)
    changed = [text for text in rough if text.lower().rstrip(".!?") != clean.lower().rstrip(".")]
    assert 300 < len(changed) < 600


@pytest.mark.parametrize("text", ["", "to be or", "{product} 12"])
def test_short_words_and_slots_have_no_slips(text: str) -> None:
    assert slip(text, Random(0)) == text


@pytest.mark.parametrize("pattern", ["(a|b", "a)", "[a|b)", "a|b"])
def test_unbalanced_patterns_are_errors(pattern: str) -> None:
    with pytest.raises(ValueError, match="unbalanced"):
        expand(pattern, Random(0))


def test_unknown_slots_are_errors() -> None:
    with pytest.raises(ValueError, match="unknown slot"):
        value("colour", Split.TRAIN, Random(0))
