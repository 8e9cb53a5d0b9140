"""A search: within its budget, never worse than what was set, gone on with after a kill, and blind to what judges."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from retrain_jobs.again import find_manifest, make_again
from retrain_jobs.examples import Example, Origin, Slice, Turn
from retrain_jobs.job import run_job
from retrain_jobs.likeness import NearIndex, prompt_text
from retrain_jobs.search import Behind, End, Found, Notebook, Settings, Trial, chosen, search
from service.core.records import JobStatus
from service.drivers.blobs import open_blobs
from service.drivers.store import SqlStore
from service.settings import RetrainSettings
from service.settings import Settings as ServiceSettings
from tests.jobs.queue import enqueue, traffic

FIRST = {"learning_rate": 0.001, "rank": 8, "dropout": 0.0}


class Bench:
    """Trials that take `each` seconds of a clock of their own; the least loss is at three times the first rate."""

    def __init__(self, each: float = 1.0) -> None:
        self.now = 0.0
        self.each = each
        self.tried: list[tuple[Settings, float]] = []

    def clock(self) -> float:
        return self.now

    def __call__(self, settings: Settings, seconds: float, behind: Behind) -> Trial:
        self.tried.append((settings, seconds))
        self.now += min(self.each, seconds)
        loss = 1.0 + math.log(settings["learning_rate"] / 0.003) ** 2 + settings["dropout"]
        for step in (1, 2):
            if behind(step, loss):
                return Trial(settings, None, End.BEHIND)
        return Trial(settings, loss, End.DONE)


def run(bench: Bench, budget: float, notebook: Notebook | None = None) -> Found:
    return search(bench, FIRST, [4, 16], budget, notebook or Notebook(None, ""), seed=0, clock=bench.clock)


def test_the_first_trial_is_what_was_set_and_others_are_better() -> None:
    bench = Bench()
    found = run(bench, 30.0)
    assert found.trials[0].settings == FIRST
    assert found.best
    best = found.trials[found.best]
    assert best.loss is not None
    assert found.trials[0].loss is not None
    assert best.loss < 1.3 < found.trials[0].loss
    assert all(0.00025 <= one.settings["learning_rate"] <= 0.004 for one in found.trials)
    assert {one.settings["rank"] for one in found.trials} == {4, 8, 16}
    assert End.BEHIND in {one.end for one in found.trials}, "nothing was given up: the test shows less than it says"


def test_the_budget_is_kept_and_a_trial_has_a_sixth_of_it() -> None:
    bench = Bench(each=1000.0)
    found = run(bench, 60.0)
    assert [seconds for _, seconds in bench.tried] == [10.0] * 6
    assert found.seconds == bench.now == 60.0
    bench = Bench(each=7.0)
    run(bench, 60.0)
    assert bench.now <= 60.0
    assert bench.tried[-1][1] >= 5.0, "a trial of less than half the time says little"


def test_a_search_that_was_killed_goes_on_and_a_finished_one_is_over(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "j1.search.json"
    killed = Bench()
    with pytest.raises(KeyboardInterrupt):
        search(_dying(killed, after=4), FIRST, [4, 16], 12.0, Notebook(path, "k"), seed=0, clock=killed.clock)
    assert len(Notebook(path, "k").read().trials) == 4

    later = Bench()
    found = run(later, 12.0, Notebook(path, "k"))
    assert len(found.trials) == 4 + len(later.tried)
    assert found.seconds <= 12.0
    assert FIRST not in [settings for settings, _ in later.tried]
    assert run(Bench(), 12.0, Notebook(path, "k")) == found
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": "k", "trials": [{"loss": 1}], "seconds": 1}'])
def test_a_notebook_that_cannot_be_read_or_is_of_another_search_is_begun_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "j1.search.json"
    path.write_text(content)
    assert Notebook(path, "k").read() == Found()
    Notebook(path, "k").write(Found((Trial(FIRST, 1.0, End.DONE),), 2.0))
    assert Notebook(path, "k").read().trials[0] == Trial(FIRST, 1.0, End.DONE)
    assert Notebook(path, "other").read() == Found()


def test_without_a_trial_that_ended_there_is_no_best() -> None:
    failing = search(
        lambda settings, seconds, behind: Trial(settings, None, End.FAILED), FIRST, [4], 0.3, Notebook(None, ""), seed=0
    )
    assert failing.best is None
    assert {one.end for one in failing.trials} == {End.FAILED}
    assert Found((Trial(FIRST, 2.0, End.DONE), Trial({}, None, End.BEHIND), Trial({}, 1.0, End.DONE))).best == 2


def test_alpha_keeps_its_proportion_to_the_rank() -> None:
    knobs = chosen(RetrainSettings(rank=16, alpha=32), {"learning_rate": 0.01, "rank": 4, "dropout": 0.1})
    assert (knobs.rank, knobs.alpha, knobs.learning_rate, knobs.dropout) == (4, 8, 0.01, 0.1)


def test_the_rows_that_judge_are_new_and_unlike_those_that_teach() -> None:
    from retrain_jobs.trials import set_aside

    rows = [
        Example(f"r{n}", float(n), n + 1.0, (Turn("user", f"{'abcdefgh'[n % 8] * 9} question {n * 7919}"),),
                f"class {n % 2}", Slice.NEW, Origin.EXPECTED)
        for n in range(60)
    ]  # fmt: skip
    rows.append(Example("twin", 99.0, 100.0, rows[0].prompt, "class 0", Slice.NEW, Origin.EXPECTED))
    learned, judges = set_aside(rows)
    assert 10 <= len(judges) <= 13
    assert not {row.request_id for row in learned} & {row.request_id for row in judges}
    assert min(row.at for row in judges) > max(row.at for row in learned if row.target == "class 0") - 10
    index = NearIndex(prompt_text(row.prompt) for row in learned)
    assert not any(prompt_text(row.prompt) in index for row in judges)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"search_s": 60, "warm_start": "champion"}, "set only one"),
        ({"search_s": 60, "recipe": "dpo_lora"}, "search_s is for recipe sft_lora"),
        ({"augment": ["typos"], "recipe": "kto_lora"}, "augment is for recipe sft_lora"),
        ({"task_temperature": 2, "recipe": "kto_lora"}, "task_temperature is for recipe sft_lora"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        RetrainSettings.model_validate(settings)


async def test_a_job_searches_and_its_manifest_repeats_what_was_chosen(
    store: SqlStore, settings: ServiceSettings, tiny_base: Path
) -> None:
    knobs = settings.retrain.model_copy(update={"search_s": 1.5, "epochs": 2.0, "learning_rate": 0.002, "rank": 2})
    service = settings.model_copy(update={"model": str(tiny_base), "retrain": knobs})
    await enqueue(store, traffic())
    blobs = open_blobs(service.blobs_url, service.state_dir / "cache")
    adapter = await run_job(store, blobs, service, "j1", "me", threads=1)
    manifest = adapter.manifest
    record = manifest["search"]
    assert len(record["trials"]) >= 2
    assert record["trials"][0]["settings"] == {"learning_rate": 0.002, "rank": 2, "dropout": 0.0}
    best = record["trials"][record["chosen"]]
    assert best["loss"] == min(one["loss"] for one in record["trials"] if one["loss"] is not None)
    assert best["settings"].items() <= manifest["settings"].items()
    assert adapter.rank == best["settings"]["rank"]
    rows = manifest["dataset"]
    assert record["learned"] + record["judged_on"] <= len(rows["train"])
    job = await store.job("j1")
    assert job.status is JobStatus.SUCCEEDED
    assert job.result["training"]["stage_seconds"]["search"] < 10.0
    assert not list((service.state_dir / "checkpoints").glob("*"))
    json.dumps(manifest, allow_nan=False)

    # The search would go otherwise now, the manifest does not search.
    again = await make_again(store, blobs, service, await find_manifest(store, adapter.name), None)
    assert again.same


def _dying(bench: Bench, after: int):  # type: ignore[no-untyped-def]
    def attempt(settings: Settings, seconds: float, behind: Behind) -> Trial:
        if len(bench.tried) == after:
            raise KeyboardInterrupt
        return bench(settings, seconds, behind)

    return attempt
