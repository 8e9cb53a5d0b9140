"""A job from its queue to its adapter, on a real store, real files and a real, tiny model."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from retrain_jobs.job import run_job
from retrain_jobs.lease import JobStopped
from service.core.errors import ConfigError, Conflict, TrimtabError
from service.core.records import Adapter, Job, JobPhase, JobStatus, Labelled
from service.drivers.blobs import open_blobs
from service.drivers.store import SqlStore
from service.settings import AliasSettings, Quantize, Settings
from tests.jobs.queue import NEW, OLD, enqueue, traffic, wait_for
from tests.jobs.rows import ONSET, desk, labelled


async def run(store: SqlStore, settings: Settings, job_id: str = "j1") -> Adapter:
    blobs = open_blobs(settings.blobs_url, settings.state_dir / "cache")
    return await run_job(store, blobs, settings, job_id, "me", threads=1)


def with_retrain(settings: Settings, **values: object) -> Settings:
    return settings.model_copy(update={"retrain": settings.retrain.model_copy(update=values)})


@pytest.fixture
def trained(settings: Settings, tiny_base: Path) -> Settings:
    return settings.model_copy(update={"model": str(tiny_base)})


async def test_a_job_makes_an_adapter_that_learned_the_new_and_tells_how_well(
    store: SqlStore, trained: Settings
) -> None:
    await enqueue(store, traffic())
    adapter = await run(store, trained)
    job = await store.job("j1")
    result = job.result

    assert (job.status, job.progress, job.error) == (JobStatus.SUCCEEDED, 1.0, None)
    assert (result["adapter"], result["digest"]) == (adapter.name, adapter.digest)
    assert await store.adapter(adapter.name) == adapter
    assert adapter.cycle_id == "c1"
    assert adapter.manifest["dataset"] == result["manifest"]["dataset"]

    new, golden = result["evaluation"]["heldout"]["new"], result["evaluation"]["golden"]
    assert new["champion"] == 0.0
    assert new["candidate"] > 0.8
    assert new["ci"][0] > 0.0
    assert golden["n"] == 10
    assert {"champion", "candidate", "delta", "ci"} <= golden.keys()
    everything = result["evaluation"]["heldout"]
    assert everything["all"]["n"] == everything["new"]["n"] + everything["replay"]["n"]
    assert everything["all"]["n"] == sum(point["n"] for point in result["evaluation"]["reliability"]["candidate"])
    assert {row["name"] for row in result["evaluation"]["classes"]} == {*OLD, *NEW}
    assert result["evaluation"]["robustness"]["n"] > 0
    assert result["evaluation"]["base"]["new"]["base"] == new["champion"]
    assert result["evaluation"]["forgetting"]["golden"]["n"] == 10
    losses = [loss for _, loss in result["training"]["heldout_loss"]]
    assert min(losses) < losses[0]
    assert result["training"]["stop_reason"] in {"epochs", "no_improvement"}
    json.dumps(result, allow_nan=False)


async def test_the_files_are_a_plain_lora_that_peft_loads_and_that_names_no_path(
    store: SqlStore, trained: Settings, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    await enqueue(store, traffic())
    adapter = await run(store, with_retrain(trained, epochs=6))
    folder = Path(await open_blobs(trained.blobs_url, tmp_path / "cache").local(adapter.name))
    assert _names(folder) == ["adapter_config.json", "adapter_model.safetensors"]
    text = (folder / "adapter_config.json").read_text("utf-8")
    assert str(tmp_path) not in text
    config = json.loads(text)
    assert config["base_model_name_or_path"] == f"sha256:{adapter.base_digest}"
    assert config["target_modules"] == sorted(config["target_modules"])
    assert "lm_head" not in config["target_modules"]

    tokenizer = AutoTokenizer.from_pretrained(trained.model)
    base = AutoModelForCausalLM.from_pretrained(trained.model, dtype=torch.float32)
    question = desk(NEW, 41, start=0)[-1]
    ids = tokenizer.apply_chat_template(
        question.capture.prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    model = PeftModel.from_pretrained(base, str(folder)).eval()
    reply = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(reply, skip_special_tokens=True) == NEW[-1]


async def test_the_same_job_twice_gives_the_same_adapter(store: SqlStore, trained: Settings) -> None:
    job = await enqueue(store, traffic())
    quick = with_retrain(trained, epochs=2)
    first = await run(store, quick)
    await store.enqueue(Job(**{**_fields(job), "id": "j2"}))
    second = await run(store, quick, "j2")
    assert first.digest == second.digest
    one, two = (await store.job("j1")).result, (await store.job("j2")).result
    assert one["manifest"] == two["manifest"]
    assert one["evaluation"] == two["evaluation"]


async def test_a_champions_adapter_is_what_the_next_candidate_is_compared_with(
    store: SqlStore, trained: Settings
) -> None:
    job = await enqueue(store, traffic())
    first = await run(store, trained)
    spec = {**job.spec, "champion": first.name}
    await store.enqueue(Job(**{**_fields(job), "id": "j2", "spec": spec}))
    await run(store, with_retrain(trained, seed=1), "j2")
    earlier = (await store.job("j1")).result["evaluation"]["golden"]
    later = (await store.job("j2")).result["evaluation"]
    assert later["golden"]["champion"] == earlier["candidate"]
    assert later["base"]["golden"]["base"] == earlier["champion"]
    (kept,) = (trained.state_dir / "cache" / "base-scores" / "support").iterdir()
    assert "question" not in kept.read_text("utf-8")
    replies = [file.name for file in (trained.state_dir / "cache" / "golden-replies" / "support").iterdir()]
    assert len(replies) == 3, "the base model's and both candidates': the champion was one of them"
    assert sum(name.startswith("base-") for name in replies) == 1


async def test_rows_beyond_the_context_are_left_out_and_counted(store: SqlStore, trained: Settings) -> None:
    long = [labelled(f"long{n}", f"{n} " + "a tale " * 200, NEW[0], at=ONSET + 300 + n) for n in range(3)]
    await enqueue(store, [*traffic(), *long])
    await run(store, with_retrain(trained, epochs=1))
    summary = (await store.job("j1")).result["dataset"]
    assert summary["dropped"]["too_long"] == 3


async def test_without_a_golden_set_the_held_out_replay_stands_in(store: SqlStore, trained: Settings) -> None:
    await enqueue(store, traffic())
    await run(store, with_retrain(trained, epochs=1).model_copy(update={"aliases": {"support": AliasSettings()}}))
    evaluation = (await store.job("j1")).result["evaluation"]
    assert evaluation["golden"] == evaluation["heldout"]["replay"]
    assert not (trained.state_dir / "cache" / "golden-replies").exists(), "rows of traffic are kept nowhere else"
    assert evaluation["golden"]["n"] > 0


async def test_the_log_tells_how_training_goes(
    store: SqlStore, trained: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("retrain_jobs.job.LOG_EVERY_S", 0.0)
    await enqueue(store, traffic())
    with caplog.at_level("INFO", logger="retrain_jobs.job"):
        await run(store, with_retrain(trained, epochs=2))
    line = r"training \d+%: step \d+ of \d+, loss [\d.]+ \(held out [\d.]+\), [\d,]+ tokens/s, about \d+ s left"
    assert [told for told in caplog.messages if re.fullmatch(line, told)]


async def test_the_time_limit_ends_training_with_an_adapter(store: SqlStore, trained: Settings) -> None:
    await enqueue(store, traffic())
    await run(store, with_retrain(trained, epochs=1000, patience=1000, max_seconds=0.5))
    training = (await store.job("j1")).result["training"]
    assert training["stop_reason"] == "max_seconds"
    assert training["seconds"] < 5.0


async def test_a_diverging_training_fails_and_leaves_nothing(store: SqlStore, trained: Settings) -> None:
    await enqueue(store, traffic())
    with pytest.raises(TrimtabError, match=r"retrain\.learning_rate"):
        await run(store, with_retrain(trained, learning_rate=1e30, epochs=3))
    await _failed_and_empty(store, trained, "retrain.learning_rate")


def contradicted() -> list[Labelled]:
    """Sixty requests, each asked twice and labelled twice, otherwise each time."""
    rows = desk(["one", "two"], 30, start=ONSET + 1)
    turned = {"one": "two", "two": "one"}
    again = [
        labelled(f"x{n}", row.capture.prompt[0]["content"], turned[row.feedback.expected or ""], at=ONSET + 99 + n)
        for n, row in enumerate(rows) if row.feedback
    ]  # fmt: skip
    return [*rows, *again]


async def test_rows_that_are_all_longer_than_the_context_end_the_job(store: SqlStore, trained: Settings) -> None:
    rows = [
        labelled(f"{kind}-{n}", f"{kind} {n * 37} " + "a tale " * 200, kind, at=ONSET + 1 + n)
        for n in range(30) for kind in NEW
    ]  # fmt: skip
    await enqueue(store, rows)
    with pytest.raises(Conflict, match="too_long"):
        await run(store, trained)
    await _failed_and_empty(store, trained, "too_long")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "0 of 0 labelled rows"),
        ([labelled("1", "hello", "x", at=ONSET + 1)], "1 of 1 labelled rows"),
        ([labelled(f"{n}", "the same", "x", at=ONSET + 1) for n in range(50)], "duplicate 49"),
        (desk(["one"], 30, start=ONSET + 1), "Only one target"),
        (desk(["one", "two"], 30, start=1), "Nothing new to learn"),
        (contradicted(), "Conflicting labels everywhere: 100% of the new prompts"),
    ],
)
async def test_what_cannot_be_learned_from_fails_before_the_model_is_touched(
    store: SqlStore, settings: Settings, rows: list[object], told: str
) -> None:
    """The base model of these settings is not there, and nobody noticed."""
    await enqueue(store, rows)  # type: ignore[arg-type]
    with pytest.raises(Conflict, match=told):
        await run(store, settings)
    await _failed_and_empty(store, settings, told)


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"model": ""}, ConfigError, "No base model"),
        ({}, ConfigError, "cannot be loaded"),
        ({"quantize": Quantize.FOUR}, ConfigError, "retrain.quantize 4bit needs a GPU and bitsandbytes"),
        ({"golden": "{}"}, ConfigError, "line 1"),
    ],
)
async def test_what_is_misconfigured_is_told_in_one_line(
    store: SqlStore, settings: Settings, change: dict[str, Any], error: type[TrimtabError], told: str,
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    await enqueue(store, traffic())
    if "golden" in change:
        path = settings.alias("support").golden_set
        assert path is not None
        path.write_text(str(change["golden"]), "utf-8")
    elif "quantize" in change:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        monkeypatch.setattr("retrain_jobs.base.find_spec", lambda name: None)
        settings = with_retrain(settings.model_copy(update={"model": str(tiny_base)}), **change)
    else:
        settings = settings.model_copy(update=change)
    with pytest.raises(error, match=told):
        await run(store, settings)
    await _failed_and_empty(store, settings, told)


async def test_a_cancelled_job_stops_in_mid_training_and_stays_cancelled(store: SqlStore, trained: Settings) -> None:
    await enqueue(store, traffic())
    running = asyncio.create_task(run(store, with_retrain(trained, epochs=10_000, patience=10_000)))
    seen = await wait_for(store, lambda job: "heldout_loss" in job.detail and job.phase is JobPhase.TRAINING)
    assert {"step", "steps", "loss", "heldout_exact", "tokens_per_s", "eta_s"} <= seen.detail.keys()
    assert seen.detail["curve"]["train"][-1][0] == seen.detail["step"]
    assert seen.detail["curve"]["heldout"][-1][1] == seen.detail["heldout_loss"]
    await store.cancel("j1", now=ONSET + 600)
    with pytest.raises(JobStopped):
        await asyncio.wait_for(running, timeout=30.0)
    assert (await store.job("j1")).status is JobStatus.CANCELLED
    assert await store.adapters() == []
    assert not (trained.state_dir / "adapters").exists()


async def test_a_job_taken_over_by_another_leaves_no_trace_of_the_first(store: SqlStore, trained: Settings) -> None:
    await enqueue(store, traffic())
    running = asyncio.create_task(run(store, with_retrain(trained, epochs=10_000, patience=10_000)))
    held = await wait_for(store, lambda job: "step" in job.detail)
    assert held.heartbeat_at is not None
    await store.claim("j1", "other", now=held.heartbeat_at + 1e6, stale_after_s=30.0)
    with pytest.raises(JobStopped):
        await asyncio.wait_for(running, timeout=30.0)
    job = await store.job("j1")
    assert (job.status, job.holder, job.error) == (JobStatus.RUNNING, "other", None)


async def _failed_and_empty(store: SqlStore, settings: Settings, told: str) -> None:
    job = await store.job("j1")
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert told in job.error
    assert "\n" not in job.error
    assert await store.adapters() == []
    assert not (settings.state_dir / "adapters").exists()


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _fields(job: Job) -> dict[str, object]:
    return {name: getattr(job, name) for name in Job.__dataclass_fields__}
