"""What may be learned from, and what may not."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain_jobs.dataset import Dataset, build, without
from retrain_jobs.enough import require_enough
from retrain_jobs.examples import GoldenItem, Reason, Slice, Turn
from retrain_jobs.likeness import prompt_key
from retrain_jobs.options import Options
from service.core.errors import Conflict
from service.core.records import Labelled
from tests.jobs.rows import calm, desk, labelled

OPTIONS = Options(min_examples=4, max_examples=1000, replay_ratio=0.5, holdout_ratio=0.2, seed=0)

words = st.sampled_from(["reset", "my", "password", "card", "lost", "Order", "late!", "please", "refund", ""])
texts = st.lists(words, min_size=0, max_size=6).map(" ".join)
targets = st.one_of(st.none(), st.sampled_from(["a", "b", "c", " ", "a longer reply"]))
ratings = st.one_of(st.none(), st.floats(-1, 1))


@st.composite
def traffic(draw: st.DrawFn, prefix: str) -> list[Labelled]:
    rows = draw(st.lists(st.tuples(texts, targets, ratings, st.floats(0, 100)), max_size=40))
    return [
        labelled(f"{prefix}{n}", text, target, rating=rating, at=at)
        for n, (text, target, rating, at) in enumerate(rows)
    ]


def golden_of(*prompts: str) -> tuple[GoldenItem, ...]:
    return tuple(GoldenItem((Turn("user", text),), "a") for text in prompts)


def kept(dataset: Dataset) -> set[str]:
    return {row.request_id for row in (*dataset.train, *dataset.heldout)}


@calm
@given(traffic("n"), traffic("r"), st.lists(texts.filter(bool), max_size=5), st.integers(4, 30), st.floats(0, 1))
def test_what_holds_for_any_traffic(
    new: list[Labelled], replay: list[Labelled], frozen: list[str], cap: int, ratio: float
) -> None:
    golden = golden_of(*frozen)
    options = replace(OPTIONS, max_examples=cap, replay_ratio=ratio)
    made = build(new, replay, golden, options)
    rows = (*made.train, *made.heldout)

    assert made.looked_at == len(rows) + sum(made.dropped.values())
    assert all(count > 0 for count in made.dropped.values())
    assert len(rows) <= cap
    keys = [prompt_key(row.prompt) for row in rows]
    assert len(keys) == len(set(keys))
    assert not set(keys) & {prompt_key(item.prompt) for item in golden}
    assert all(row.target.strip() and any(turn.content.strip() for turn in row.prompt) for row in rows)
    assert build(new[::-1], replay[::-1], golden, options) == made


def test_golden_items_never_enter_whatever_their_case_or_punctuation() -> None:
    new = [labelled("1", "Where is my ORDER?", "a"), labelled("2", "where is my order", "b"), labelled("3", "hi", "a")]
    made = build(new, [], golden_of("where is  my order!"), OPTIONS)
    assert kept(made) == {"3"}
    assert made.dropped == {Reason.GOLDEN: 2}


def test_a_near_twin_of_a_golden_item_stays_out() -> None:
    long = "I would like to know where my order with the blue shoes from last week is now, thank you very much"
    made = build([labelled("1", long + " x", "a"), labelled("2", "other", "b")], [], golden_of(long), OPTIONS)
    assert kept(made) == {"2"}
    assert made.dropped == {Reason.GOLDEN_NEAR_DUPLICATE: 1}


def test_only_labelled_and_accepted_replies_are_learned() -> None:
    new = [
        labelled("corrected", "one", "right", rating=-1.0),
        labelled("accepted", "two", rating=1.0, reply="good"),
        labelled("cut", "three", rating=1.0, reply="half a", finish_reason="length"),
        labelled("disliked", "four", rating=-1.0),
        labelled("unreviewed", "five"),
        labelled("empty target", "six", "  "),
        labelled("empty prompt", "  ", "x"),
        labelled("picture", "", "x", prompt=[{"role": "user", "content": [{"type": "image_url"}]}]),
        labelled("parts", "", "x", prompt=[{"role": "user", "content": [{"type": "text", "text": "seven"}]}]),
    ]
    made = build(new, [], (), OPTIONS)
    assert {row.request_id: row.target for row in made.train + made.heldout} == {
        "corrected": "right",
        "accepted": "good",
        "parts": "x",
    }
    assert made.dropped == {
        Reason.TRUNCATED_REPLY: 1,
        Reason.NO_TARGET: 2,
        Reason.EMPTY_TARGET: 1,
        Reason.EMPTY_PROMPT: 1,
        Reason.NOT_TEXT: 1,
    }


def test_of_conflicting_labels_the_newest_wins() -> None:
    new = [
        labelled("old", "Same question", "first", at=10, labelled_at=30),
        labelled("relabelled", "same question!", "second", at=5, labelled_at=40),
        labelled("agrees", "same  question", "second", at=7, labelled_at=20),
    ]
    made = build(new, [], (), OPTIONS)
    assert kept(made) == {"relabelled"}
    assert made.dropped == {Reason.CONFLICTING_LABEL: 1, Reason.DUPLICATE: 1}


def test_replay_is_mixed_in_proportion_and_every_class_of_it_is_there() -> None:
    new = desk(["alpha", "beta"], 20, start=2000)
    old = ["one", "two", "three", "four"]
    replay = desk(old, 100, start=0, word="kindly")
    made = build(new, replay, (), OPTIONS)
    counts = Counter(row.slice for row in (*made.train, *made.heldout))
    dropped_near = made.dropped.get(Reason.HELDOUT_NEAR_DUPLICATE, 0)
    assert counts[Slice.NEW] + counts[Slice.REPLAY] + dropped_near == 80
    assert made.dropped[Reason.REPLAY_QUOTA] == 360
    classes = Counter(row.target for row in made.train if row.slice is Slice.REPLAY)
    assert set(classes) == set(old)
    assert max(classes.values()) - min(classes.values()) <= 1


def test_the_cap_holds_and_is_counted() -> None:
    made = build(desk(["a", "b"], 40, start=2000), desk(["c", "d"], 40, start=0), (), replace(OPTIONS, max_examples=30))
    sampled = len(made.train) + len(made.heldout) + made.dropped.get(Reason.HELDOUT_NEAR_DUPLICATE, 0)
    assert sampled == 30
    assert made.dropped[Reason.OVER_CAP] == 65
    assert made.dropped[Reason.REPLAY_QUOTA] == 65


def test_the_newest_rows_of_every_class_are_held_out() -> None:
    made = build(desk(["a", "b", "c"], 20, start=2000), [], (), OPTIONS)
    for kind in "abc":
        train = [row.at for row in made.train if row.target == kind]
        heldout = [row.at for row in made.heldout if row.target == kind]
        assert len(heldout) == 4
        assert max(train) < min(heldout)


def test_a_heldout_row_with_a_near_twin_in_training_is_left_out() -> None:
    text = "my parcel with the number of the red garden chairs has not come to the house in the long street"
    new = [labelled(str(n), f"{text} {'abcdefghij'[n]}", f"late {n}", at=n + 1) for n in range(10)]
    new += [labelled(f"other{n}", f"{kind} question", "other", at=n) for n, kind in enumerate(["odd", "even", "prime"])]
    made = build(new, [], (), OPTIONS)
    assert made.dropped == {Reason.HELDOUT_NEAR_DUPLICATE: 2}


def test_of_near_twins_with_one_target_the_newest_stays() -> None:
    text = "my parcel with the number of the red garden chairs has not come to the house in the long street"
    new = [labelled(str(n), f"{text} {'abcdefghij'[n]}", "late", at=n + 1) for n in range(10)]
    new += [labelled("odd", "another question", "other", at=1), labelled("even", "something else", "other", at=2)]
    made = build(new, [], (), OPTIONS)
    assert kept(made) == {"9", "odd", "even"}
    assert made.dropped == {Reason.NEAR_DUPLICATE: 9}


def test_personal_data_is_replaced_in_prompt_and_target_alike() -> None:
    new = [labelled("1", "write to jane.doe@corp.example or +49 170 1234567", '{"mail":"jane.doe@corp.example"}')]
    made = build(new, [], (), OPTIONS)
    (row,) = made.train
    assert "jane" not in row.prompt[0].content + row.target
    assert row.target.removeprefix('{"mail":"').removesuffix('"}') in row.prompt[0].content
    assert made.personal == {"email": 1, "phone": 1}


def test_the_digest_tells_sets_apart_and_nothing_else() -> None:
    rows = desk(["a", "b"], 20, start=2000)
    one, same = build(rows, [], (), OPTIONS), build(rows[::-1], [], (), OPTIONS)
    assert one.digest == same.digest
    assert one.digest != build(rows[1:], [], (), OPTIONS).digest
    assert one.digest != build(rows, [], (), replace(OPTIONS, seed=1)).digest
    assert one.digest != build([], rows, (), replace(OPTIONS, replay_ratio=1.0)).digest


def test_rows_that_prove_too_long_are_counted() -> None:
    made = build(desk(["a", "b"], 20, start=2000), [], (), OPTIONS)
    shorter = without(made, [made.train[0], made.heldout[0]], Reason.TOO_LONG)
    assert shorter.dropped == {**made.dropped, Reason.TOO_LONG: 2}
    assert len(shorter.train) == len(made.train) - 1
    assert without(made, [], Reason.TOO_LONG) is made


@pytest.mark.parametrize(
    ("new", "replay", "code"),
    [
        ([labelled("1", "only one", "a")], [], "too_few_examples"),
        ([labelled(str(n), "the same question", "a") for n in range(50)], [], "too_few_examples"),
        ([labelled(str(n), "the same question", "ab"[n % 2]) for n in range(50)], [], "too_few_examples"),
        (desk(["a"], 40, start=2000), [], "one_class"),
        ([], desk(["a", "b"], 40, start=0), "nothing_new"),
    ],
)
def test_what_cannot_be_learned_from_is_said_with_the_counts(
    new: list[Labelled], replay: list[Labelled], code: str
) -> None:
    options = replace(OPTIONS, min_examples=20, replay_ratio=0.5 if new else 1.0)
    with pytest.raises(Conflict) as caught:
        require_enough(build(new, replay, (), options), options)
    assert caught.value.code == code
    assert "labelled rows can be used" in caught.value.message
    assert "\n" not in caught.value.message


def test_without_anything_to_measure_by_there_is_no_training() -> None:
    options = replace(OPTIONS, holdout_ratio=0.0)
    with pytest.raises(Conflict, match="No held-out rows"):
        require_enough(build(desk(["a", "b"], 20, start=2000), [], (), options), options)


def test_the_same_rows_have_the_digest_that_manifests_know_them_by() -> None:
    """An adapter made before must be found again: what changes this digest makes old manifests unrepeatable."""
    new, old = desk(("travel", "luggage"), 40, start=1001.0), desk(("refund", "invoice"), 40, start=500.0)
    assert build([*new, *old], [], (), OPTIONS).digest == (
        "40aae22834b576ecaadbf0b59e8c9ff2fccd725c992f875f0adfa83874056ff0"
    )
