"""Which replies may be learned to keep away from, that none of them is ever one to give, and where all others went."""

from __future__ import annotations

from dataclasses import replace

import pytest

from retrain_jobs.dataset import Dataset
from retrain_jobs.enough import require_enough
from retrain_jobs.examples import Example, GoldenItem, Reason, Slice, Turn
from retrain_jobs.likeness import normalise, prompt_key
from retrain_jobs.options import Options
from retrain_jobs.preferences import prepare, turned_down
from service.core.errors import Conflict
from service.core.records import Adapter, Feedback, ImportedRow, Labelled
from service.core.trained import adapters_trained_on
from service.settings import Recipe
from tests.jobs.queue import NEW, OLD
from tests.jobs.rows import ONSET, desk, labelled

SFT, DPO, KTO = (
    Options(min_examples=10, max_examples=1000, replay_ratio=0.5, holdout_ratio=0.2, seed=0, recipe=recipe)
    for recipe in Recipe
)


def corrected(each: int = 20) -> list[Labelled]:
    """The desk's rows, each with a reply that its correction contradicts."""
    return [
        replace(row, capture=replace(row.capture, reply=f"wrong about {row.feedback.expected}"))
        for row in desk(NEW, each, start=ONSET + 1) if row.feedback
    ]  # fmt: skip


def disliked(count: int, *, start: float = ONSET + 500, word: str = "odd", **values: str) -> list[Labelled]:
    return [
        labelled(f"{word}-{n}", f"{word} question {n * 7919} of {chr(97 + n % 26) * 9}", rating=-1.0, at=start + n,
                 reply=f"{word} answer {n * 31}", **values)  # type: ignore[arg-type]
        for n in range(count)
    ]  # fmt: skip


def ids(rows: tuple[Example, ...]) -> set[str]:
    return {row.request_id for row in rows}


def counted(dataset: Dataset) -> int:
    kept = ids(dataset.train) | ids(dataset.heldout) | ids(dataset.rejected)
    assert dataset.summary()["kept"] == len(kept)
    return len(kept) + sum(dataset.dropped.values())


@pytest.mark.parametrize(
    ("expected", "rating", "reply", "finish", "found"),
    [
        ("refund", None, "invoice", "stop", "invoice"),
        ("refund", -1.0, " invoice ", "stop", "invoice"),
        (None, -1.0, "invoice", "stop", "invoice"),
        ("refund", None, "Refund.", "stop", Reason.NO_PAIR),
        ("refund", 1.0, "invoice", "stop", Reason.NO_PAIR),
        (None, -0.2, "invoice", "stop", Reason.NO_PAIR),
        (None, 1.0, "invoice", "stop", Reason.NO_PAIR),
        (None, None, "invoice", "stop", Reason.NO_PAIR),
        (None, -1.0, "in the first pl", "length", Reason.TRUNCATED_REPLY),
        (None, -1.0, "  ", "stop", Reason.EMPTY_TARGET),
    ],
)
def test_what_counts_as_turned_down(
    expected: str | None, rating: float | None, reply: str, finish: str, found: str | Reason
) -> None:
    row = labelled("a", "where is it", expected, rating=rating, reply=reply, finish_reason=finish)
    made = turned_down(row, Slice.NEW)
    assert (made.target if isinstance(made, Example) else made) == found


def test_pairs_are_corrections_beside_what_they_correct() -> None:
    accepted = [labelled(f"up-{n}", f"a fine thing {n * 7919} {chr(97 + n) * 8}", rating=1.0, reply=f"yes {n}",
                         at=ONSET + 300 + n) for n in range(10)]  # fmt: skip
    new = [*corrected(), *accepted, *disliked(5)]
    dataset = prepare(new, desk(OLD, 20, start=1), (), DPO)
    assert len(dataset.train) == len(dataset.rejected) > 40
    for wanted, rejected in zip(dataset.train, dataset.rejected, strict=True):
        assert (wanted.request_id, wanted.prompt) == (rejected.request_id, rejected.prompt)
        assert rejected.target in {f"wrong about {wanted.target}", "something"}
    assert not ids(accepted_rows := dataset.train) & {row.capture.request_id for row in accepted}
    assert accepted_rows
    assert dataset.dropped[Reason.NO_PAIR] >= 5
    assert dataset.dropped[Reason.NO_TARGET] == 5, "a thumb down alone is no pair"
    assert any(row.request_id.startswith("up-") for row in dataset.heldout), "judged by all that is labelled"
    corrections = {row.request_id: row.prompt for row in dataset.heldout if not row.request_id.startswith("up-")}
    assert {row.request_id: row.prompt for row in dataset.judged_rejected} == corrections, "and by held-out pairs"
    assert dataset.digest == replace(dataset, judged_rejected=()).digest, "which nobody learns from"
    assert counted(dataset) == dataset.looked_at


def test_a_reply_that_was_turned_down_is_never_one_to_give() -> None:
    dataset = prepare([*corrected(), *disliked(30)], desk(OLD, 20, start=1), (), KTO)
    said = {normalise(row.target) for row in (*dataset.train, *dataset.heldout)}
    assert len([row for row in dataset.rejected if row.request_id.startswith("odd-")]) == 30
    assert any(row.request_id in ids(dataset.train) for row in dataset.rejected)
    assert not said & {normalise(row.target) for row in dataset.rejected}
    assert not ids(dataset.rejected) & ids(dataset.heldout), "what it is judged by, it must not learn from"
    assert counted(dataset) == dataset.looked_at
    assert prepare([*corrected(), *disliked(30)], desk(OLD, 20, start=1), (), SFT).rejected == ()


def test_of_a_thumb_up_and_a_thumb_down_for_one_reply_the_newer_wins() -> None:
    def said(name: str, rating: float, at: float) -> Labelled:
        return labelled(name, "may I keep the same room", rating=rating, reply="of course", at=at)

    for ratings, kept in (((1.0, -1.0), "rejected"), ((-1.0, 1.0), "train")):
        new = [*corrected(), said("early", ratings[0], ONSET + 600), said("late", ratings[1], ONSET + 700)]
        dataset = prepare(new, desk(OLD, 20, start=1), (), replace(KTO, holdout_ratio=0.0))
        places = {side for side in ("train", "heldout", "rejected") if {"early", "late"} & ids(getattr(dataset, side))}
        assert places == {kept}
        assert dataset.dropped[Reason.CONFLICTING_LABEL] == 1
        assert counted(dataset) == dataset.looked_at


def test_thumbs_down_pass_the_same_checks() -> None:
    base = [*corrected(), *disliked(20, source="ann", key_id="k"), *disliked(20, word="rum", source="bob", key_id="k")]
    loud = disliked(200, word="spam", start=ONSET + 900, source="eve", key_id="k")
    twin = labelled("twin", "ODD question 0 of aaaaaaaaa!", rating=-1.0, reply="odd answer 0", at=ONSET + 2000)
    heldout = next(iter(prepare(base, desk(OLD, 20, start=1), (), KTO).heldout))
    judged = Labelled(
        replace(twin.capture, request_id="judged", reply="no such thing", prompt=heldout.messages()),
        Feedback("fj", "judged", ONSET + 2001, rating=-1.0),
    )
    golden = (GoldenItem((Turn("user", "rum question 0 of aaaaaaaaa"),), "x"),)
    private = labelled("mail", "who is it that writes to me from there", rating=-1.0, reply="it is ann@corp.example",
                       at=ONSET + 2100)  # fmt: skip
    new = [*base, *loud, twin, judged, private]
    dataset = prepare(new, desk(OLD, 20, start=1), golden, replace(KTO, source_ratio=0.4))
    found = ids(dataset.rejected)
    assert dataset.dropped[Reason.GOLDEN] == 1
    assert "rum-0" not in found
    assert {"odd-0", "twin"} & found == {"twin"}
    assert "judged" not in found
    assert dataset.dropped[Reason.HELDOUT_NEAR_DUPLICATE] >= 1
    loud_kept = len([row for row in dataset.rejected if row.source == "eve"])
    assert 0 < loud_kept < 200
    assert dataset.dropped[Reason.SOURCE_CAP] >= 200 - loud_kept
    assert not [row for row in dataset.rejected if "corp.example" in row.target]
    assert dataset.personal["email"] >= 1
    assert counted(dataset) == dataset.looked_at


def test_imported_rows_are_no_preferences() -> None:
    rows = [ImportedRow(f"imp_{n}", "support", ONSET + n, ONSET, [{"role": "user", "content": f"what of {n * 97} {n}"}],
                        NEW[n % 2], "import:a.csv") for n in range(20)]  # fmt: skip
    dataset = prepare([*corrected(), *rows], desk(OLD, 20, start=1), (), DPO)
    assert not [row for row in (*dataset.train, *dataset.rejected) if row.request_id.startswith("imp_")]


@pytest.mark.parametrize(
    ("options", "rows", "told"),
    [
        (DPO, disliked(50), "0 corrected replies"),
        (DPO, [*corrected(3), *disliked(50)], r"[45] corrected replies, retrain\.min_examples is 10"),
        (KTO, [*corrected(0), *desk(NEW, 20, start=ONSET + 1)], "Too few preferences"),
    ],
)
def test_too_few_preferences_are_told(options: Options, rows: list[Labelled], told: str) -> None:
    same = [replace(r, capture=replace(r.capture, reply=r.feedback.expected))
            if r.feedback and r.feedback.expected and r.capture.reply == "something" else r for r in rows]  # fmt: skip
    with pytest.raises(Conflict, match=told) as caught:
        require_enough(prepare(same, (), (), options), options)
    assert caught.value.code == "too_few_preferences"


def test_the_same_rows_give_the_same_set_and_erasure_finds_rejected_ones() -> None:
    new, old = [*corrected(), *disliked(30)], desk(OLD, 20, start=1)
    one, other = prepare(new, old, (), KTO), prepare(list(reversed(new)), old, (), KTO)
    assert one.digest == other.digest
    assert one.digest != replace(one, rejected=one.rejected[1:]).digest
    manifest = {"dataset": {"train": ["a"], "heldout": [], "rejected": ["odd-1"]}}
    adapter = Adapter("support@1", "support", "1", "b", 8, 1, 0.0, None, manifest)
    (found,) = adapters_trained_on([adapter], ["odd-1"])
    assert (found.adapter, found.train, found.heldout) == ("support@1", 1, 0)
    assert {prompt_key(row.prompt) for row in one.rejected}
