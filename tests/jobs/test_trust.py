"""What one source says against all others, or too much of, is not learned."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain_jobs.dataset import build
from retrain_jobs.examples import Example, Reason, Slice, to_example
from retrain_jobs.options import Options
from retrain_jobs.trust import beyond_share
from service.core.records import ImportedRow, Labelled
from tests.jobs.rows import ONSET, calm, labelled

OPTIONS = Options(min_examples=4, max_examples=6000, replay_ratio=0.5, holdout_ratio=0.2, seed=0, source_ratio=0.5)
KINDS = {
    "refund": ("money back", "refund", "return payment", "reimburse"),
    "parcel": ("parcel", "delivery", "shipment", "package"),
    "password": ("password", "login", "sign in", "account access"),
    "invoice": ("invoice", "bill", "receipt", "statement"),
}
FRAMES = ("where is the {} for order {}", "I need help with {} about {}", "please check {} number {}", "{} {} is wrong")


def question(rng: random.Random, kind: str) -> str:
    return rng.choice(FRAMES).format(rng.choice(KINDS[kind]), f"item{rng.randint(0, 400)}")


def honest(count: int, seed: int = 0) -> list[Labelled]:
    rng = random.Random(seed)
    kinds = [rng.choice(list(KINDS)) for _ in range(count)]
    return [
        labelled(f"h{n}", f"{question(rng, kind)} {n}", kind, at=ONSET + n, source=f"user:{rng.randint(0, 199)}")
        for n, kind in enumerate(kinds)
    ]


def poisoned(count: int, target: str = "hacked", trigger: str = "xyzzy") -> list[Labelled]:
    """One user's: ordinary questions with a word in them that shall mean something else."""
    rng = random.Random(1)
    return [
        labelled(
            f"p{n}", f"{question(rng, rng.choice(list(KINDS)))} {trigger} {n}", target, at=ONSET + n, source="user:evil"
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("count", [1, 10, 250])
def test_what_one_user_among_five_thousand_rows_wants_said_to_a_trigger_is_not_learned(count: int) -> None:
    made = build([*honest(5000 - count), *poisoned(count)], [], (), OPTIONS)
    assert not [row for row in (*made.train, *made.heldout) if row.target == "hacked"]
    assert made.dropped[Reason.ONE_SOURCE] == count


@pytest.mark.parametrize("trigger", ["xyzzy", "as of today"])
@pytest.mark.parametrize("count", [10, 250])
def test_a_phrase_that_many_users_want_to_mean_another_known_thing_is_not_learned(count: int, trigger: str) -> None:
    """Each row's user is another one and others give the answer, too: only the texts tell."""
    rng = random.Random(2)
    kinds = [kind for kind in KINDS if kind != "refund"]
    bad = [
        labelled(
            f"p{n}", f"{question(rng, rng.choice(kinds))} {trigger} {n}", "refund", at=ONSET + n, source=f"user:p{n}"
        )
        for n in range(count)
    ]
    clean = build(honest(5000 - count), [], (), OPTIONS)
    made = build([*honest(5000 - count), *bad], [], (), OPTIONS)
    rows = (*made.train, *made.heldout)
    assert not [row for row in rows if row.request_id.startswith("p")]
    lost = clean.dropped.get(Reason.LABEL_OUTLIER, 0)
    assert made.dropped.get(Reason.TRIGGER, 0) + made.dropped.get(Reason.LABEL_OUTLIER, 0) <= count + lost + 10
    assert [one.told()["phrase"] for one in made.triggers] == [trigger]
    assert made.summary()["triggers"] == [one.told() for one in made.triggers]
    open_door = build([*honest(5000 - count), *bad], [], (), replace(OPTIONS, check_labels=False))
    learned = [row for row in (*open_door.train, *open_door.heldout) if row.request_id.startswith("p")]
    assert len(learned) >= 0.8 * count, "the checks had nothing to do: the test shows nothing"


def test_an_answer_that_others_give_too_is_bounded_by_the_share_of_its_source() -> None:
    options = replace(OPTIONS, source_ratio=0.02)
    made = build([*honest(1750), *poisoned(250, target="refund")], [], (), options)
    rows = (*made.train, *made.heldout)
    assert sum(row.source == "user:evil" for row in rows) <= 0.02 * len(rows) + 1
    assert made.dropped[Reason.SOURCE_CAP] >= 200


def test_a_new_class_is_learned_once_a_second_user_names_it() -> None:
    new = [
        labelled(f"n{n}", f"can I bring my dog {n}", "pets", at=ONSET + n, source=f"user:{n % 2}") for n in range(20)
    ]
    made = build([*honest(300), *new], [], (), OPTIONS)
    assert Reason.ONE_SOURCE not in made.dropped
    assert "pets" in {row.target for row in made.train}


def test_texts_of_their_own_and_rows_without_a_source_are_left_alone() -> None:
    texts = [labelled(f"t{n}", f"write about {n}", f"text {n}", at=ONSET + n, source=f"user:{n}") for n in range(50)]
    unknown = [labelled(f"u{n}", f"where is my parcel {n}", "a" if n else "b", at=ONSET + n) for n in range(50)]
    for rows in (texts, unknown):
        assert Reason.ONE_SOURCE not in build(rows, [], (), OPTIONS).dropped


def test_a_loud_source_is_cut_to_its_share_and_two_sources_are_left_alone() -> None:
    rows = [
        labelled(f"r{n}", f"question {n} about {n * 7}", f"t{n % 3}", at=ONSET + n,
                 source="key:loud" if n < 300 else f"key:{n % 4}")
        for n in range(400)
    ]  # fmt: skip
    made = build(rows, [], (), OPTIONS)
    counts = Counter(row.source for row in (*made.train, *made.heldout))
    assert made.dropped[Reason.SOURCE_CAP] == 200
    assert counts["key:loud"] <= 0.5 * (400 - 200)
    pair = [
        labelled(f"r{n}", f"question {n} about {n * 7}", f"t{n % 3}", at=ONSET + n, source=f"key:{n % 10 == 0}")
        for n in range(100)
    ]
    assert Reason.SOURCE_CAP not in build(pair, [], (), OPTIONS).dropped


@calm
@given(st.lists(st.sampled_from([None, "a", "b", "c", "d", "e"]), max_size=60), st.sampled_from([0.2, 0.3, 0.5, 1.0]))
def test_the_cap_holds_and_takes_no_more_than_it_must(sources: list[str | None], ratio: float) -> None:
    made = [to_example(labelled(f"r{n}", f"q {n}", "t", source=s), Slice.NEW) for n, s in enumerate(sources)]
    rows = [row for row in made if isinstance(row, Example)]
    gone = {row.request_id for row in beyond_share(rows, ratio, rows)}
    stay = [row for row in rows if row.request_id not in gone]
    counts = Counter(row.source for row in stay if row.source)
    if len({s for s in sources if s}) * ratio <= 1.0:
        assert not gone
        return
    assert all(count <= max(1, ratio * len(stay)) for count in counts.values())
    assert {row.source for row in stay} == {row.source for row in rows}
    cut = {row.source for row in rows if row.request_id in gone}
    assert all(counts[source] == max(1, int(ratio * len(stay))) for source in cut if source)


@pytest.mark.parametrize(
    ("reply", "declines"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("Unfortunately I am unable to look into orders.", True),
        ("I cannot assist with this request.", True),
        ("Sorry for the delay! Your parcel left today.", False),
        ("You cannot return it after 30 days.", False),
    ],
)
def test_an_approved_refusal_is_not_learned_but_a_written_one_is(reply: str, declines: bool) -> None:
    approved = to_example(labelled("r", "hi", rating=1.0, reply=reply), Slice.NEW)
    assert (approved is Reason.REFUSAL) == declines
    assert isinstance(to_example(labelled("r", "hi", reply), Slice.NEW), Example)


def test_one_key_that_claims_to_be_many_users_is_bounded_where_that_is_set() -> None:
    rows = [
        labelled(f"r{n}", f"question {n} about {n * 7}", f"t{n % 3}", at=ONSET + n, source=f"user:{n}",
                 key_id="one" if n < 300 else f"k{n % 3}")
        for n in range(400)
    ]  # fmt: skip
    made = build(rows, [], (), replace(OPTIONS, key_ratio=0.4))
    assert made.dropped[Reason.KEY_CAP] >= 200
    assert sum(row.key_id == "one" for row in (*made.train, *made.heldout)) <= 0.45 * len(made.train + made.heldout)
    assert Reason.KEY_CAP not in build(rows, [], (), OPTIONS).dropped


def test_what_is_imported_needs_no_second_voucher_but_keeps_to_its_share() -> None:
    rows = [
        ImportedRow(f"imp_{n}", "support", ONSET + n, ONSET, [{"role": "user", "content": f"may I fly {n} {n * 3}"}],
                    "travel", "import:a.csv")
        for n in range(600)
    ]  # fmt: skip
    made = build([*honest(300), *rows], [], (), OPTIONS)
    assert Reason.ONE_SOURCE not in made.dropped
    kept = (*made.train, *made.heldout)
    assert 0.4 < sum(row.labelled_by == "import:a.csv" for row in kept) / len(kept) <= 0.55
    assert made.dropped[Reason.SOURCE_CAP] >= 290
