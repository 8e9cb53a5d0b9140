"""Requests out to people and their labels in, over a real store: what was asked for comes back, and only once."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retrain_jobs.examples import Origin, Slice
from retrain_jobs.job import Spec, _read
from retrain_jobs.labels.__main__ import main
from retrain_jobs.labels.choose import choose, classes_of
from retrain_jobs.labels.exchange import export, take
from retrain_jobs.options import Options
from service.core.records import DriftCheck, Labelled
from service.drivers.store import SqlStore
from service.settings import Settings
from tests.jobs.rows import ONSET, desk, labelled

PLACES = ("Rome", "the moon", "Oslo in May", "my aunt", "work", "Peru", "sea", "a wedding", "Bonn", "school again")
OPTIONS = Options(min_examples=4, max_examples=1000, replay_ratio=0.5, holdout_ratio=0.2, seed=0)
SPEC = Spec("support", "base", 0.0, ONSET, None)


def asked(kind: str, count: int, confidence: float, *, start: float = ONSET + 1) -> list[Labelled]:
    rows = desk([kind], count, start=start, word=f"about {kind}")
    return [Labelled(replace(row.capture, confidence=confidence, reply="refund"), None) for row in rows]


async def serve(store: SqlStore, rows: list[Labelled]) -> None:
    await store.add_alias("support", now=0.0)
    await store.add_captures([row.capture for row in rows])
    await store.add_feedback([row.feedback for row in rows if row.feedback])


def test_every_kind_is_asked_about_the_doubted_and_the_drifted_ones_more() -> None:
    rows = [*asked("refund", 100, -0.01), *asked("travel", 100, -1.0), *asked("luggage", 100, -2.0)]
    chosen = choose(rows, 40, seed=1)
    kinds = [one.capture.request_id.split("-")[1] for one in chosen]
    assert len(chosen) == len({one.capture.request_id for one in chosen}) == 40
    assert kinds[0] == "luggage"
    assert min(kinds.count(kind) for kind in ("refund", "travel", "luggage")) >= 5
    drifted = choose(rows, 40, ["travel"], seed=1)
    assert [one.drifted for one in drifted].count(True) > 20
    assert {one.capture.request_id.split("-")[1] for one in drifted if one.drifted} == {"travel"}
    assert choose(rows[::-1], 40, ["travel"], seed=1) == drifted


def test_the_least_confident_come_first_and_no_text_comes_twice() -> None:
    sure, unsure = asked("travel", 30, -0.1), asked("travel", 5, -3.0, start=ONSET + 100)
    unsure = [
        Labelled(
            replace(
                r.capture,
                request_id=f"u{i}",
                prompt=[{"role": "user", "content": f"a very long question about travel by train number {i}"}],
            ),
            None,
        )
        for i, r in enumerate(unsure)
    ]
    chosen = choose([*sure, *sure, *unsure], 8)
    assert chosen[0].capture.request_id.startswith("u")
    assert sum(one.capture.request_id.startswith("u") for one in chosen) == 1, "the others are near duplicates of it"
    assert len({one.text for one in chosen}) == len(chosen)
    answered = labelled("l", "a very long question about travel by train number 0", "travel")
    assert all(one.text != answered.capture.prompt[0]["content"] for one in choose([answered, *unsure], 8))
    assert choose([], 8) == []


def test_targets_are_classes_where_few_are_given_often() -> None:
    assert classes_of(desk(["b", "a"], 5, start=0)) == ["a", "b"]
    assert classes_of([labelled(f"{n}", f"q {n}", f"text {n}") for n in range(20)]) == []


async def test_labels_go_out_and_come_back(store: SqlStore, tmp_path: Path) -> None:
    await serve(store, [*desk(["refund", "invoice"], 20, start=ONSET - 100), *asked("travel", 30, -2.0)])
    told = await export(store, "support", tmp_path / "tasks.json", count=10, since=ONSET)
    tasks = json.loads(told.tasks.read_text("utf-8"))
    assert (told.chosen, told.looked_at, len(tasks)) == (10, 30, 10)
    assert '<Choice value="invoice"/>' in told.interface.read_text("utf-8")
    (prediction,) = tasks[0]["predictions"]
    assert prediction["model_version"] == "base"
    assert prediction["score"] == pytest.approx(0.135, abs=0.001)
    assert prediction["result"][0]["value"] == {"choices": ["refund"]}

    for number, task in enumerate(tasks):
        value: Any = {"choices": ["travel"]}
        result = {"from_name": "reply", "to_name": "prompt", "type": "choices", "value": value}
        task["id"] = number
        task["annotations"] = [{"result": [result], "was_cancelled": False, "updated_at": "2026-01-02T03:04:05Z"}]
    tasks[0]["annotations"] = []
    tasks[1]["annotations"][0]["was_cancelled"] = True
    tasks[2]["annotations"][0]["result"][0]["value"] = {"choices": ["travel", "refund"]}
    export_file = tmp_path / "export.json"
    export_file.write_text(json.dumps(tasks), "utf-8")
    counts = await take(store, "support", export_file, {}, now=ONSET + 900)
    assert counts == {
        "source": "label-studio", "corrections": 7, "rows": 0, "already_there": 0, "unlabelled": 2, "left_out": 1,
        "faults": ["task 3: 'reply' has 2 values where one is right"],
    }  # fmt: skip
    again = await take(store, "support", export_file, {}, now=ONSET + 901)
    assert (again["corrections"], again["already_there"]) == (0, 7)

    dataset = await _read(store, SPEC, (), OPTIONS)
    taken = [row for row in (*dataset.train, *dataset.heldout) if row.labelled_by]
    assert {(row.target, row.origin, row.labelled_by) for row in taken} == {("travel", Origin.IMPORTED, "label-studio")}
    assert dataset.summary()["imported"] == {"label-studio": len(taken)}
    assert len(taken) >= 5


async def test_the_short_export_brings_corrections_and_rows_of_its_own(store: SqlStore, tmp_path: Path) -> None:
    await serve(store, asked("travel", 2, -2.0))
    path = tmp_path / "min.json"
    rows = [
        {"request_id": "about travel-travel-0", "prompt": "x", "reply": "travel", "annotator": 1},
        {"request_id": "gone", "prompt": "where may I fly", "reply": {"choices": ["travel"]}},
        {"request_id": "gone too", "reply": "travel"},
        {"prompt": "nobody labelled this"},
        "what",
    ]
    path.write_text(json.dumps(rows), "utf-8")
    counts = await take(store, "support", path, {}, now=ONSET + 900)
    assert (counts["corrections"], counts["rows"], counts["unlabelled"]) == (1, 1, 1)
    assert counts["faults"] == [
        "task 5: no object", "request 'gone too' is not in the store, and the row has no prompt",
    ]  # fmt: skip
    found = await store.capture("about travel-travel-0")
    assert found.feedback is not None
    assert (found.feedback.expected, found.feedback.source) == ("travel", "label-studio")
    again = await take(store, "support", path, {}, now=ONSET + 901)
    assert (again["corrections"], again["rows"], again["already_there"]) == (0, 0, 2)


async def test_a_file_is_new_or_replay_by_its_times_and_counts_once(store: SqlStore, tmp_path: Path) -> None:
    await serve(store, desk(["refund"], 5, start=ONSET + 1))
    path = tmp_path / "rows.csv"
    path.write_text(
        "prompt,expected,at\n" + "".join(f"may I fly to {PLACES[n]},travel,{1 if n % 2 else ''}\n" for n in range(10)),
        "utf-8",
    )
    assert (await take(store, "support", path, {}, now=ONSET + 900))["rows"] == 10
    renamed = path.rename(tmp_path / "other.csv")
    again = await take(store, "support", renamed, {}, now=ONSET + 901)
    assert (again["rows"], again["already_there"]) == (0, 10)
    dataset = await _read(store, SPEC, (), replace(OPTIONS, replay_ratio=1.0))
    taken = {row.slice: 0 for row in dataset.train} | {Slice.REPLAY: 0}
    for row in (*dataset.train, *dataset.heldout):
        taken[row.slice] += row.labelled_by == "import:rows.csv"
    assert taken[Slice.NEW] + taken[Slice.REPLAY] + dataset.dropped.get("heldout_near_duplicate", 0) == 10
    assert min(taken.values()) >= 3
    assert await store.count("support", since=0.0) == 5, "imported rows are no traffic"
    assert await store.window("support", since=0.0, limit=100) == await store.window(
        "support", since=0.0, limit=100, labelled_only=True
    )


async def test_a_drifts_words_choose(store: SqlStore, tmp_path: Path) -> None:
    await serve(store, [*asked("refund", 30, -0.5), *asked("travel", 30, -0.5)])
    check = DriftCheck(
        "d1", "support", ONSET + 50, "DRIFTED", [], [], 1, 1, since=ONSET, topics=[{"words": ["travel"]}]
    )
    await store.add_drift_check(check)
    told = await export(store, "support", tmp_path / "tasks.json", count=9, since=None)
    assert told.drifted >= 6
    assert '<TextArea name="reply"' in told.interface.read_text("utf-8")


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["export", "nobody", "out.json"], 1, "There is no alias 'nobody'"),
        (["import", "support", "none.csv"], 1, "cannot be read"),
        (["import", "support", "bad.jsonl"], 1, "left_out: 1"),
        (["export", "support", "out.json", "--since", "soon"], 1, "is not a moment"),
        (["export", "support", "no/such/folder/out.json"], 1, "cannot be written"),
        (["import", "support", "good.jsonl", "--json"], 0, '"rows": 1'),
        (["import", "support", "good.jsonl", "--config", "none.yaml"], 2, "none.yaml"),
    ],
)
def test_the_command(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], args: list[str], code: int,
    told: str,
) -> None:  # fmt: skip
    folder = settings.state_dir
    monkeypatch.chdir(folder)
    with sqlite3.connect(folder / "trimtab.db") as connection:
        connection.execute("INSERT INTO aliases VALUES ('support', 'base', NULL, NULL, 0, 0, 1, 0, 0, 0, 0)")
    (folder / "bad.jsonl").write_text("{}\n")
    (folder / "good.jsonl").write_text('{"prompt": "a", "expected": "b"}\n{}\n')
    assert main([*args, "--state-dir", str(folder)]) == code
    printed = capsys.readouterr()
    assert told in printed.out + printed.err
