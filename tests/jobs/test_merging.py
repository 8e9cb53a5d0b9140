"""Adapters merged into a candidate like any other: what may be asked for, PEFT's arithmetic, and the job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retrain_jobs.again import find_manifest, make_again
from retrain_jobs.job import run_job
from service.core.errors import Conflict, NotFound
from service.core.merging import Merge, MergeMethod
from service.core.records import Adapter, JobStatus
from service.core.trained import adapters_trained_on
from service.drivers.blobs import open_blobs
from service.drivers.store import SqlStore
from service.settings import Settings, WarmStart
from tests.jobs.queue import NEW, OLD, enqueue
from tests.jobs.rows import ONSET, desk

torch = pytest.importorskip("torch")

from peft import LoraConfig, get_peft_model  # noqa: E402

from retrain_jobs.base import Base, load_base  # noqa: E402
from retrain_jobs.publish import save_adapter  # noqa: E402
from retrain_jobs.recipes.merged import merged  # noqa: E402


def plain(tiny_base: Path) -> Base:
    loaded = load_base(str(tiny_base), threads=1, max_length=128)
    loaded.model.float()
    return loaded


def made_up(tiny_base: Path, folder: Path, seed: int, rank: int = 4, **config: Any) -> tuple[str, dict[str, Any]]:
    """A folder with random weights, and what they add to each layer."""
    base = plain(tiny_base)
    model = get_peft_model(base.model, LoraConfig(r=rank, lora_alpha=8, target_modules=["q_proj", "up_proj"],
                                                  task_type="CAUSAL_LM", **config))  # fmt: skip
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora" in name:
                weight.normal_(0, 0.1)
    save_adapter(model, folder, base_name="x")
    return str(folder), deltas(model)


def deltas(model: Any) -> dict[str, Any]:
    return {
        name: module.get_delta_weight("default").detach().clone()
        for name, module in model.named_modules() if hasattr(module, "get_delta_weight")
    }  # fmt: skip


@pytest.mark.parametrize(("ranks", "config"), [((4, 4), {}), ((4, 2), {}), ((4, 4), {"use_rslora": True})])
def test_svd_is_the_weighted_sum_as_near_as_the_rank_allows(
    tiny_base: Path, tmp_path: Path, ranks: tuple[int, int], config: dict[str, Any]
) -> None:
    (one, a), (other, b) = (made_up(tiny_base, tmp_path / f"{n}", n, rank, **config) for n, rank in enumerate(ranks))
    asked = Merge(("a", "b"), MergeMethod.SVD, (0.75, -0.5))
    model = merged(plain(tiny_base), [one, other], asked, seed=0)
    assert list(model.peft_config) == ["default"]
    assert model.peft_config["default"].r == 4
    for name, found in deltas(model).items():
        whole = 0.75 * a[name] - 0.5 * b[name]
        u, s, v = torch.linalg.svd(whole)
        torch.testing.assert_close(found, u[:, :4] @ torch.diag(s[:4]) @ v[:4], rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:The density 1.0")
@pytest.mark.parametrize("method", list(MergeMethod))
def test_an_adapter_merged_with_itself_is_itself(tiny_base: Path, tmp_path: Path, method: MergeMethod) -> None:
    folder, whole = made_up(tiny_base, tmp_path / "a", 1)
    asked = Merge(("a", "b", "c"), method, density=1.0)
    for name, found in deltas(merged(plain(tiny_base), [folder] * 3, asked, seed=0)).items():
        torch.testing.assert_close(found, whole[name], rtol=1e-3, atol=1e-4)


def test_what_dare_drops_follows_from_the_seed(tiny_base: Path, tmp_path: Path) -> None:
    folders = [made_up(tiny_base, tmp_path / f"{n}", n)[0] for n in range(2)]
    asked = Merge(("a", "b"), MergeMethod.DARE_TIES, density=0.5)
    one, same, other = (deltas(merged(plain(tiny_base), folders, asked, seed=seed)) for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_what_peft_cannot_merge_is_a_conflict(tiny_base: Path, tmp_path: Path) -> None:
    folders = [made_up(tiny_base, tmp_path / f"{rank}", 0, rank)[0] for rank in (2, 4)]
    with pytest.raises(Conflict, match="cannot be merged"):
        merged(plain(tiny_base), folders, Merge(("a", "b"), MergeMethod.LINEAR), seed=0)


@pytest.fixture
def trained(settings: Settings, tiny_base: Path) -> Settings:
    knobs = settings.retrain.model_copy(update={"warm_start": WarmStart.CHAMPION})
    return settings.model_copy(update={"model": str(tiny_base), "retrain": knobs})


async def two_tasks(store: SqlStore, settings: Settings) -> list[Adapter]:
    """An adapter of the old kinds, one that went on from it to the new ones, and a job `j3` with the first as champion:
    over rows of theirs, and rows of all kinds that neither has seen."""
    blobs = open_blobs(settings.blobs_url, settings.state_dir / "cache")
    first, second = desk(OLD, 20, start=ONSET + 1), desk(NEW, 20, start=ONSET + 100)
    job = await enqueue(store, [*first, *second, *desk([*OLD, *NEW], 20, start=ONSET + 1000, word="kindly")], "j0")
    await store.cancel("j0", now=1e9)
    found: list[Adapter] = []
    for name, onset, until in (("j1", ONSET + 1, ONSET + 62), ("j2", ONSET + 100, ONSET + 162)):
        champion = found[0].name if found else "base"
        spec = {**job.spec, "champion": champion, "window_since": ONSET, "onset": onset, "until": until}
        await store.enqueue(replace(job, id=name, spec=spec))
        found.append(await run_job(store, blobs, settings, name, "me", threads=1))
    merge = Merge(tuple(adapter.name for adapter in found), weights=(0.3, 0.7)).told()
    spec = {**job.spec, "champion": found[0].name, "onset": ONSET + 1, "until": ONSET + 5000, "merge": merge}
    await store.enqueue(replace(job, id="j3", spec=spec))
    return found


async def test_a_merge_is_judged_on_rows_that_its_parents_never_saw_and_is_made_again(
    store: SqlStore, trained: Settings
) -> None:
    parents = await two_tasks(store, trained)
    blobs = open_blobs(trained.blobs_url, trained.state_dir / "cache")
    job = await store.job("j3")
    adapter = await run_job(store, blobs, trained, "j3", "me", threads=1)
    told = adapter.manifest["dataset"]
    assert adapter.manifest["parents"] == [parent.name for parent in parents]
    assert adapter.manifest["job"]["merge"]["method"] == "svd"
    assert told["train"] == []
    learned = {row for parent in parents for row in parent.manifest["dataset"]["train"]}
    assert told["heldout"]
    assert not learned & set(told["heldout"])
    result = (await store.job("j3")).result
    assert result["dataset"]["dropped"]["not_trained"] > 0
    assert result["training"]["stop_reason"] == "merged"
    assert result["evaluation"]["heldout"]["all"]["n"] == len(told["heldout"])
    assert adapter.digest not in {parent.digest for parent in parents}

    again = await make_again(store, blobs, trained, await find_manifest(store, adapter.name), None)
    assert again.digest == adapter.digest
    one, other = (set(parent.manifest["dataset"]["train"]) for parent in parents)
    row = min(other - one)
    named = {one.adapter: one.inherits for one in adapters_trained_on(await store.adapters(), [row])}
    assert named[adapter.name] == (parents[1].name,)

    # Without rows that its parents have not seen, or without a parent, it ends with the reason.
    # Held out by this job, as the newest of their time, but trained on by the first parent's.
    narrow = {**job.spec, "window_since": ONSET + 1, "until": ONSET + 25}
    await store.enqueue(replace(job, id="j4", spec=narrow))
    with pytest.raises(Conflict, match=r"Too few rows to judge the merged adapter by: \d .*parent_trained"):
        await run_job(store, blobs, trained, "j4", "me", threads=1)
    gone = {**job.spec, "merge": {**job.spec["merge"], "adapters": [parents[0].name, "support@000000000000"]}}
    await store.enqueue(replace(job, id="j5", spec=gone))
    with pytest.raises(NotFound, match="support@000000000000"):
        await run_job(store, blobs, trained, "j5", "me", threads=1)
    assert (await store.job("j5")).status is JobStatus.FAILED
    assert len(await store.adapters()) == 3
