"""An adapter made again from its manifest is the same, byte for byte; where it cannot be, the reason is told."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from retrain_jobs.again import find_manifest, make_again
from retrain_jobs.job import run_job
from service.core.errors import BadRequest, Conflict, NotFound
from service.core.records import Adapter, Feedback, ImportedRow
from service.drivers.blobs import open_blobs
from service.drivers.store import SqlStore
from service.ports import Blobs
from service.settings import Augment, Settings
from tests.jobs.queue import NEW, enqueue, traffic
from tests.jobs.rows import ONSET


@pytest.fixture
def trained(settings: Settings, tiny_base: Path) -> Settings:
    retrain = settings.retrain.model_copy(update={"epochs": 2.0})
    return settings.model_copy(update={"model": str(tiny_base), "retrain": retrain})


def blobs_of(settings: Settings) -> Blobs:
    return open_blobs(settings.blobs_url, settings.state_dir / "cache")


async def made(store: SqlStore, settings: Settings) -> Adapter:
    await enqueue(store, traffic())
    for n in range(10):
        asked = [{"role": "user", "content": f"where is my luggage number {n * 7} of flight {n}"}]
        await store.add_imported([ImportedRow(f"imp_{n}", "support", ONSET + n, ONSET, asked, NEW[1], "import:a.csv")])
    return await run_job(store, blobs_of(settings), settings, "j1", "me", threads=1)


async def test_a_training_that_ran_against_the_clock_is_repeated_to_the_byte(
    store: SqlStore, trained: Settings, tmp_path: Path
) -> None:
    hurried = trained.retrain.model_copy(update={"epochs": 50.0, "max_seconds": 2.0, "patience": 50})
    adapter = await made(store, trained.model_copy(update={"retrain": hurried}))
    assert adapter.manifest["dataset"]["imported"]["import:a.csv"] > 5
    pace = adapter.manifest["pace"]
    assert len(pace) > 2, "the clock had no say: the test shows nothing"
    # Settings of today do not matter, those of the manifest do.
    again = await make_again(
        store, blobs_of(trained), trained, await find_manifest(store, adapter.name), tmp_path / "out"
    )
    assert again.digest == adapter.digest
    assert again.same
    assert again.differences == []
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


async def test_other_wordings_and_drawn_tasks_are_repeated_to_the_byte(store: SqlStore, trained: Settings) -> None:
    changes = {"augment": tuple(Augment), "task_temperature": 3.0, "seed": 5}
    settings = trained.model_copy(update={"retrain": trained.retrain.model_copy(update=changes)})
    rows = traffic()
    for number, row in enumerate(rows):
        system = {"role": "system", "content": "Sort the request." if number % 8 else "Name the department."}
        asked = replace(row.capture, prompt=[system, *row.capture.prompt])
        rows[number] = replace(row, capture=asked)
    await enqueue(store, rows)
    blobs = open_blobs(settings.blobs_url, settings.state_dir / "cache")
    adapter = await run_job(store, blobs, settings, "j1", "me", threads=1)

    dataset = adapter.manifest["dataset"]
    assert {name for name, ids in dataset["augmented"].items() if len(ids) > 10} == set(Augment)
    few, many = sorted(dataset["tasks"], key=lambda task: task["rows"])
    assert few["drawn"] > 1.5 * few["rows"]
    assert many["drawn"] < many["rows"]
    result = (await store.job("j1")).result
    assert sum(result["dataset"]["augmented"].values()) == sum(map(len, dataset["augmented"].values()))

    # Today's settings have neither, the manifest has both.
    again = await make_again(store, blobs, trained, await find_manifest(store, adapter.name), None)
    assert again.same


async def test_a_setting_that_a_manifest_does_not_know_is_as_it_was_then(store: SqlStore, trained: Settings) -> None:
    adapter = await made(store, trained)
    then = {name: value for name, value in adapter.manifest["settings"].items() if name != "task_temperature"}
    older = replace(await find_manifest(store, adapter.name), content={**adapter.manifest, "settings": then})
    now = trained.retrain.model_copy(update={"task_temperature": 5.0, "rank": 2})
    knobs = older.settings(trained.model_copy(update={"retrain": now})).retrain
    assert (knobs.task_temperature, knobs.rank) == (1.0, trained.retrain.rank)
    broken = replace(older, content={**adapter.manifest, "settings": {**then, "rank": "many"}})
    with pytest.raises(BadRequest, match="settings are none of ours"):
        broken.settings(trained)


async def test_a_file_will_do_and_other_content_gives_another_digest(
    store: SqlStore, trained: Settings, tmp_path: Path
) -> None:
    adapter = await made(store, trained)
    path = tmp_path / "manifest.json"
    changed = {**adapter.manifest, "settings": {**adapter.manifest["settings"], "seed": 7}, "code": "0+abc"}
    path.write_text(json.dumps({"digest": adapter.digest, "manifest": changed}))
    again = await make_again(store, blobs_of(trained), trained, await find_manifest(store, str(path)), None)
    assert again.digest != adapter.digest
    assert not again.same
    assert again.differences[0].startswith("code was 0+abc, is ")


async def test_what_has_changed_is_told_before_anything_is_trained(store: SqlStore, trained: Settings) -> None:
    adapter = await made(store, trained)
    recorded = await find_manifest(store, adapter.name)
    other = {**adapter.manifest, "base_digest": "0" * 64}
    with pytest.raises(Conflict, match=r"base model .* is not the manifest's"):
        await make_again(store, blobs_of(trained), trained, replace(recorded, content=other), None)

    rows = adapter.manifest["dataset"]
    strange = {**adapter.manifest, "dataset": {**rows, "train": ["req_gone", *rows["train"]]}}
    with pytest.raises(Conflict, match=r"1 of the manifest's rows are not there .* req_gone"):
        await make_again(store, blobs_of(trained), trained, replace(recorded, content=strange), None)

    older = {**adapter.manifest, "recipe": {**adapter.manifest["recipe"], "bogus": 1}, "code": "0.1+abc"}
    with pytest.raises(BadRequest, match=r"another version's \(bogus\); Trimtab 0.1\+abc can make"):
        await make_again(store, blobs_of(trained), trained, replace(recorded, content=older), None)

    await store.add_feedback([Feedback("late", rows["train"][0], 9e9, expected="something else")])
    with pytest.raises(Conflict, match="a label has changed since"):
        await make_again(store, blobs_of(trained), trained, recorded, None)


def places(text: str) -> list[str]:
    """A finder, as an operator may have one."""
    return re.findall(r"luggage|item", text)


async def test_what_the_owners_finders_found_is_found_again_and_a_manifest_names_no_code_to_run(
    store: SqlStore, trained: Settings
) -> None:
    personal = trained.retrain.model_copy(update={"personal": (f"{__name__}:places",)})
    scrubbing = trained.model_copy(update={"retrain": personal})
    adapter = await made(store, scrubbing)
    recorded = await find_manifest(store, adapter.name)
    assert (await make_again(store, blobs_of(scrubbing), scrubbing, recorded, None)).same
    with pytest.raises(BadRequest, match="were scrubbed by"):
        await make_again(store, blobs_of(trained), trained, recorded, None)


async def test_what_is_no_manifest_is_refused(store: SqlStore, trained: Settings, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="There is no manifest at"):
        await find_manifest(store, str(tmp_path / "none.json"))
    with pytest.raises(NotFound):
        await find_manifest(store, "support@0123456789ab")
    for text, told in (
        ("{", "is not JSON"),
        ("[]", "dataset, settings"),
        ('{"manifest": {"code": "1"}}', "base_digest"),
    ):
        (tmp_path / "m.json").write_text(text)
        with pytest.raises(BadRequest, match=told):
            await find_manifest(store, str(tmp_path / "m.json"))
