"""What the loop itself said can never teach it: only what people labelled enters, and nothing it is judged by."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from retrain_jobs.dataset import Dataset
from retrain_jobs.examples import GoldenItem, Turn, read_golden
from retrain_jobs.job import Spec, _read
from retrain_jobs.labels.exchange import export, take
from retrain_jobs.likeness import NearIndex, normalise, prompt_key, prompt_text
from retrain_jobs.options import Options
from retrain_jobs.selection import selection
from service.core.records import Capture, Labelled, ShadowReply
from service.drivers.store import SqlStore
from tests.jobs.queue import enqueue, traffic
from tests.jobs.rows import ONSET, desk, labelled

OPTIONS = Options(min_examples=4, max_examples=1000, replay_ratio=0.5, holdout_ratio=0.2, seed=0)
SPEC = Spec("support", "base", 0.0, ONSET, None)

SHADOW = "the candidate in shadow said that it knows nothing at all about request number {}"
UNREVIEWED = "the champion said by itself and unasked that this is the answer to number {}"
JUDGED = "reply A is better than reply B because it names the order number {}"


def served(request_id: str, text: str, reply: str, alias: str = "support") -> Capture:
    made = labelled(request_id, text, reply=reply, at=ONSET + 200).capture
    return replace(made, alias=alias)


async def loop(store: SqlStore) -> Dataset:
    """Labelled traffic, each request with a shadow reply; unreviewed, disliked and judging traffic beside it."""
    rows = traffic()
    await enqueue(store, rows)
    await store.add_shadow_replies(
        [ShadowReply(row.capture.request_id, "support@b", row.capture.at, SHADOW.format(n), 200, 0.1)
         for n, row in enumerate(rows)]
    )  # fmt: skip
    unreviewed = [served(f"u{n}", f"something new that nobody reviewed {n}", UNREVIEWED.format(n)) for n in range(30)]
    judging = [served(f"j{n}", f"Which reply is better? A: {n} B: no", JUDGED.format(n), alias) for n, alias in
               enumerate(["support", "base", "judge"] * 10)]  # fmt: skip
    await store.add_captures([*unreviewed, *judging])
    disliked = [labelled(f"d{n}", f"what people disliked {n}", rating=-1.0, reply=UNREVIEWED.format(n), at=ONSET + 300)
                for n in range(10)]  # fmt: skip
    await store.add_captures([row.capture for row in disliked])
    await store.add_feedback([row.feedback for row in disliked if row.feedback])
    return await _read(store, SPEC, (), OPTIONS)


async def test_no_target_is_or_resembles_what_the_loop_said(store: SqlStore) -> None:
    dataset = await loop(store)
    rows = (*dataset.train, *dataset.heldout)
    said = [text.format(n) for text in (SHADOW, UNREVIEWED, JUDGED) for n in range(160)]
    digests, near = {normalise(text) for text in said}, NearIndex(normalise(text) for text in said)
    assert len(rows) > 100
    assert not [row for row in rows if normalise(row.target) in digests or normalise(row.target) in near]
    assert not [row for row in rows if row.request_id[0] in "ujd"]
    assert normalise(SHADOW.format(200)) in near, "the index finds nothing: the test shows nothing"


async def test_no_prompt_is_or_resembles_an_evaluation_item(store: SqlStore, tmp_path: Path) -> None:
    await loop(store)
    path = tmp_path / "golden.jsonl"
    frozen = [row for n, row in enumerate(traffic()) if n % 5 == 0]
    texts = [str(row.capture.prompt[0]["content"]) for row in frozen]
    path.write_text(
        "".join(json.dumps({"messages": [{"role": "user", "content": f"{text.upper()}!"}], "expected": "x"}) + "\n"
                for text in texts)
    )  # fmt: skip
    golden = read_golden(path)
    dataset = await _read(store, SPEC, golden, OPTIONS)
    for one, other in ((golden, dataset.train + dataset.heldout), (dataset.heldout, dataset.train)):
        keys, near = {prompt_key(item.prompt) for item in one}, NearIndex(prompt_text(item.prompt) for item in one)
        assert not [row for row in other if prompt_key(row.prompt) in keys or prompt_text(row.prompt) in near]
    assert dataset.dropped["golden"] == len(texts)
    near_one = (GoldenItem((Turn("user", f"{texts[0]} ."),), "x"), GoldenItem((Turn("user", texts[1] + "s"),), "x"))
    assert (await _read(store, SPEC, near_one, OPTIONS)).dropped["golden_near_duplicate"] >= 1


async def test_the_models_own_pre_annotations_are_no_labels(store: SqlStore, tmp_path: Path) -> None:
    await loop(store)
    texts = ("my kettle leaks", "who pays for this", "what is the weather like", "close my account")
    await store.add_captures([served(f"c{n}", text, "refund") for n, text in enumerate(texts)])
    tasks = tmp_path / "tasks.json"
    told = await export(store, "support", tasks, count=20, since=None)
    assert told.chosen > 5
    assert "predictions" in tasks.read_text("utf-8")
    counts = await take(store, "support", tasks, {}, now=ONSET + 900)
    assert (counts["corrections"], counts["rows"]) == (0, 0)


async def test_which_requests_got_feedback_is_recorded(store: SqlStore) -> None:
    told = (await loop(store)).selection
    assert (told["requests"], told["labelled"]) == (130, 90)
    assert told["by_topic"]["distance"] > told["by_topic"]["chance"], "what is new here, nobody reviewed"


def test_a_random_selection_is_told_from_a_chosen_one() -> None:
    rows = desk(["refund", "travel"], 100, start=ONSET)
    asked = [
        replace(row, capture=replace(row.capture, reply=str(row.feedback.expected), confidence=-n / 200))
        for n, row in enumerate(rows) if row.feedback
    ]  # fmt: skip
    fair = [row if (n // 2) % 4 == 0 else Labelled(row.capture, None) for n, row in enumerate(asked)]
    chosen = [row if row.capture.reply == "travel" else Labelled(row.capture, None) for row in asked]
    sure_only = [row if n < 50 else Labelled(row.capture, None) for n, row in enumerate(asked)]
    told = selection(fair)
    assert (told["requests"], told["labelled"]) == (200, 50)
    assert told["by_reply"]["distance"] <= told["by_reply"]["chance"]
    assert told["by_confidence"]["distance"] <= told["by_confidence"]["chance"]
    by_reply = selection(chosen)["by_reply"]
    assert by_reply["distance"] == 0.5 > by_reply["chance"]
    assert by_reply["shares"][0] == {"value": "refund", "requests": 100, "labelled": 0}
    assert selection(sure_only)["by_confidence"]["distance"] == 0.75
    assert selection([]) == {"requests": 0, "labelled": 0}
    nobody = selection([Labelled(row.capture, None) for row in asked])
    assert nobody["by_reply"]["distance"] is None
    json.dumps(nobody, allow_nan=False)
