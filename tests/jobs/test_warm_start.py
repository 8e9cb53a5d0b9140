"""A training that begins with the champion's weights, or tries both ways; and that it can be made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retrain_jobs.again import find_manifest, make_again
from retrain_jobs.job import run_job
from service.core.errors import Conflict
from service.core.records import Adapter, JobPhase
from service.core.trained import adapters_trained_on
from service.drivers.adapter_files import adapter_digest, read_adapter
from service.drivers.blobs import open_blobs
from service.drivers.store import SqlStore
from service.ports import Blobs
from service.settings import Recipe, Settings, WarmStart
from tests.jobs.queue import NEW, OLD, enqueue, traffic
from tests.jobs.rows import ONSET, desk

torch = pytest.importorskip("torch")

from retrain_jobs.attempts import Attempt, best_of, starts  # noqa: E402
from retrain_jobs.base import load_base  # noqa: E402
from retrain_jobs.candidate import fit, read_config  # noqa: E402
from retrain_jobs.dataset import build  # noqa: E402
from retrain_jobs.options import Options  # noqa: E402
from retrain_jobs.recipes.watch import Curve  # noqa: E402
from retrain_jobs.work import Work  # noqa: E402

FRESH, CHAMPION, BOTH = WarmStart


@pytest.fixture
def trained(settings: Settings, tiny_base: Path) -> Settings:
    return settings.model_copy(update={"model": str(tiny_base)})


@pytest.fixture
def blobs(settings: Settings) -> Blobs:
    return open_blobs(settings.blobs_url, settings.state_dir / "cache")


def with_retrain(settings: Settings, **values: object) -> Settings:
    return settings.model_copy(update={"retrain": settings.retrain.model_copy(update=values)})


async def champion_of(store: SqlStore, blobs: Blobs, settings: Settings) -> Adapter:
    """The first job's adapter, and a second job `j2` that has it as its champion."""
    job = await enqueue(store, traffic())
    first = await run_job(store, blobs, settings, "j1", "me", threads=1)
    await store.enqueue(replace(job, id="j2", spec={**job.spec, "champion": first.name}))
    return first


async def test_it_goes_on_from_the_champion_says_so_and_is_made_again(
    store: SqlStore, blobs: Blobs, trained: Settings
) -> None:
    first = await champion_of(store, blobs, trained)
    second = await run_job(store, blobs, with_retrain(trained, epochs=1.0, warm_start=CHAMPION), "j2", "me", threads=1)
    before, after = [(await store.job(name)).result["training"] for name in ("j1", "j2")]
    nothing, reached = before["train_loss"][0][1], before["heldout_loss"][-1][1]
    assert reached < nothing - 1.0
    assert after["train_loss"][0][1] < (nothing + reached) / 2, "it began no better than from nothing"
    assert second.manifest["start"]["taken"] == "champion"
    assert second.manifest["parents"] == [first.name]
    assert first.manifest["start"]["taken"] == "fresh"
    again = await make_again(store, blobs, trained, await find_manifest(store, second.name), None)
    assert again.digest == second.digest

    row = first.manifest["dataset"]["train"][0]
    named = {one.adapter: one.inherits for one in adapters_trained_on(await store.adapters(), [row])}
    assert named[second.name] == (first.name,)

    await blobs.delete(first.name)
    with pytest.raises(Conflict, match=f"began from {first.name}, which was removed"):
        await make_again(store, blobs, trained, await find_manifest(store, second.name), None)


async def test_of_both_the_one_with_the_lower_held_out_loss_is_kept_and_made_again(
    store: SqlStore, blobs: Blobs, trained: Settings
) -> None:
    await champion_of(store, blobs, trained)
    second = await run_job(store, blobs, with_retrain(trained, epochs=1.0, warm_start=BOTH), "j2", "me", threads=1)
    start = second.manifest["start"]
    assert start["heldout_loss"].keys() == {"champion", "fresh"}
    assert start["taken"] == min(start["heldout_loss"], key=start["heldout_loss"].get)
    assert start["taken"] == "champion", "the one that was not trained last: else the test shows less"
    result = (await store.job("j2")).result
    assert result["training"]["start"] == start
    training = result["training"]
    judged = dict(map(tuple, training["heldout_exact"]))[training["best_step"]]
    assert judged > 0.2
    kept = result["evaluation"]["heldout"]["all"]["candidate"]
    assert kept == pytest.approx(judged, abs=0.05), "the kept weights are not those that were judged"
    again = await make_again(store, blobs, trained, await find_manifest(store, second.name), None)
    assert again.digest == second.digest


class Killed(Exception):
    pass


def test_a_second_start_that_was_cut_off_does_not_repeat_the_first(
    trained: Settings, tiny_base: Path, tmp_path: Path
) -> None:
    dataset = build(desk(NEW, 20, start=ONSET + 1), desk(OLD, 20, start=1), (), options := Options.of(trained.retrain))
    config = read_config(Recipe.SFT_LORA)

    def run(
        knobs: Mapping[str, Any], champion: str | None, name: str, stop: int | None = None
    ) -> tuple[str, list[str]]:
        settings = with_retrain(trained, epochs=1.0, checkpoint_s=0.0001, **knobs)
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        base = load_base(str(tiny_base), threads=1, max_length=128)
        work = Work(settings, "support", {"champion": "support@1"}, dataset, (), champion, options, folder, 1,
                    tmp_path / f"{name}.pt")  # fmt: skip
        seen: list[str] = []

        def report(phase: JobPhase, share: float, **detail: Any) -> None:
            seen.append(detail["start"])
            if len(seen) == stop:
                raise Killed

        found = fit(work, base, config, report)
        return adapter_digest(read_adapter(found.folder)), seen

    run({}, None, "first")
    champion = str(tmp_path / "first" / "adapter-fresh")
    whole, steps = run({"warm_start": BOTH}, champion, "whole")
    half = len(steps) // 2
    assert steps == ["champion"] * half + ["fresh"] * half
    with pytest.raises(Killed):
        run({"warm_start": BOTH}, champion, "cut", stop=half + 2)
    again, steps = run({"warm_start": BOTH}, champion, "cut")
    assert again == whole
    assert steps == ["fresh"] * (half - 1), "the champion's start was made again"


@pytest.mark.parametrize(
    ("wanted", "champion", "order"),
    [
        (FRESH, "a", [FRESH]), (CHAMPION, "a", [CHAMPION]), (BOTH, "a", [CHAMPION, FRESH]),
        (CHAMPION, None, [FRESH]), (BOTH, None, [FRESH]),
    ],
)  # fmt: skip
def test_over_the_base_model_only_a_fresh_start_is_there(
    wanted: WarmStart, champion: str | None, order: Sequence[WarmStart]
) -> None:
    assert list(starts(wanted, champion)) == order


class Nothing:
    def unload(self) -> None: ...


@pytest.mark.parametrize(("took", "tried"), [(40.0, 2), (60.0, 1)])
def test_another_start_is_tried_only_where_there_is_as_much_time_again(took: float, tried: int) -> None:
    given: list[float] = []

    def train(start: WarmStart, seconds: float) -> Attempt:
        given.append(seconds)
        curve = Curve(heldout=[(1, 2.0 / len(given))], best_step=1, seconds=took)
        return Attempt(start, Nothing(), curve, Path())

    best, told = best_of((CHAMPION, FRESH), train, None, 100.0)  # type: ignore[arg-type]
    assert given == [100.0, 60.0][:tried]
    assert best.start is (FRESH if tried == 2 else CHAMPION)
    assert told["heldout_loss"] == dict([("champion", 2.0), ("fresh", 1.0)][:tried])
