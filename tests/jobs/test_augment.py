"""Other wordings of training rows: which are made, which are not, and that no other row has any."""

from __future__ import annotations

from dataclasses import replace

import pytest

from retrain_jobs.augment import by_kind, counted, made_again, origin, variant, variants
from retrain_jobs.dataset import build, without
from retrain_jobs.examples import Example, GoldenItem, Origin, Reason, Slice, Turn
from retrain_jobs.likeness import NearIndex, prompt_text
from retrain_jobs.options import Options
from service.settings import Augment
from tests.jobs.queue import NEW, OLD
from tests.jobs.rows import ONSET, desk

EVERY = tuple(Augment)


def row(text: str, target: str = "refund", number: int = 0) -> Example:
    prompt = (Turn("system", "Sort it."), Turn("user", text))
    return Example(f"r{number}", 1.0, 2.0, prompt, target, Slice.NEW, Origin.EXPECTED)


def rows(count: int) -> list[Example]:
    return [row(f"when will my parcel number {n} arrive at the station", number=n) for n in range(count)]


@pytest.mark.parametrize("kind", EVERY)
def test_a_kind_changes_the_users_words_and_nothing_else(kind: Augment) -> None:
    asked = rows(20)
    made = variants(asked, [kind], [], seed=1)
    assert counted(made) == {kind: len(made)}
    assert len(made) >= 12
    for one in made:
        (before,) = [each for each in asked if each.request_id == origin(one)]
        assert one.prompt[0] == before.prompt[0]
        assert one.prompt[1].content != before.prompt[1].content
        assert replace(one, request_id=before.request_id, prompt=before.prompt) == before
    said = {one.prompt[1].content for one in made}
    assert len(said) == len(made)


def test_templates_keep_the_request_whole_and_casing_its_letters() -> None:
    text = "when will my parcel arrive"
    assert text in variant(row(text), Augment.TEMPLATES, seed=0).prompt[1].content
    assert variant(row(text), Augment.CASING, seed=3).prompt[1].content.lower() == text


def test_the_same_seed_makes_the_same_and_the_record_is_enough_to_make_them_again() -> None:
    made = variants(rows(30), EVERY, [], seed=1)
    assert variants(rows(30), EVERY, [], seed=1) == made
    assert variants(rows(30), EVERY, [], seed=2) != made
    assert set(counted(made)) == set(EVERY)
    assert made_again(rows(30), by_kind(made), seed=1) == made
    assert made_again(rows(30), {}, seed=1) == ()


def test_what_says_the_same_or_loses_the_target_is_not_made() -> None:
    assert variants([row("12 34 ?", number=n) for n in range(9)], [Augment.TYPOS, Augment.CASING], [], seed=0) == ()
    copied = [row("please book Lisbon", target=f"Lisbon {n}", number=n) for n in range(40)]
    made = variants(copied, [Augment.TYPOS, Augment.CASING], [], seed=0)
    assert 0 < len(made) < 40
    assert all("Lisbon" in one.prompt[1].content for one in made)
    classes = [replace(one, target="Lisbon") for one in copied]
    assert len(variants(classes, [Augment.TYPOS, Augment.CASING], [], seed=0)) > len(made)
    assert variants(rows(5), (), [], seed=0) == ()


def test_no_variant_comes_near_what_judges() -> None:
    asked = rows(20)
    unseen = [one.prompt for one in variants(asked, EVERY, [], seed=1)]
    assert variants(asked, EVERY, unseen, seed=1) == ()


def test_only_training_rows_are_augmented_and_nothing_else_changes() -> None:
    golden = (GoldenItem((Turn("user", "golden question"),), "refund"),)
    plain = Options(10, 2000, 0.5, 0.2, 0)
    new, old = desk(NEW, 40, start=ONSET + 1), desk(OLD, 40, start=1)
    before = build(new, old, golden, plain)
    dataset = build(new, old, golden, replace(plain, augment=EVERY))
    assert before.variants == ()
    assert (dataset.train, dataset.heldout, dataset.dropped) == (before.train, before.heldout, before.dropped)
    assert dataset.digest == before.digest
    assert 0.6 * len(dataset.train) < len(dataset.variants) <= len(dataset.train)
    assert dataset.summary()["augmented"] == counted(dataset.variants)
    assert {origin(one) for one in dataset.variants} <= {one.request_id for one in dataset.train}
    unseen = NearIndex(prompt_text(one.prompt) for one in (*dataset.heldout, *golden))
    assert not any(prompt_text(one.prompt) in unseen for one in dataset.variants)

    gone = dataset.variants[0]
    left = without(dataset, [one for one in dataset.train if one.request_id == origin(gone)], Reason.TOO_LONG)
    assert gone not in left.variants
    assert len(left.variants) == len(dataset.variants) - 1
