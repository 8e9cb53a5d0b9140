"""One job from claim to result: dataset, training, evaluation, publishing. Every step can be lost and begun again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from retrain_jobs.dataset import Dataset
from retrain_jobs.enough import require_enough
from retrain_jobs.examples import GoldenItem, read_golden
from retrain_jobs.languages import check_languages
from retrain_jobs.lease import JobStopped, Lease, hold
from retrain_jobs.limits import one_line
from retrain_jobs.options import Options
from retrain_jobs.parents import for_merging
from retrain_jobs.preferences import prepare
from retrain_jobs.selection import selection
from retrain_jobs.served import ask_served, compared
from retrain_jobs.tracking import track
from retrain_jobs.unfinished import checkpoint_path, clear_checkpoints, forget
from retrain_jobs.work import Judged, Made, Work
from service.core.errors import ConfigError, Conflict, StaleWrite
from service.core.merging import Merge
from service.core.names import BASE, adapter_name
from service.core.progress import told
from service.core.records import Adapter, Job, JobPhase
from service.drivers.adapter_files import adapter_digest, read_adapter, register_adapter
from service.drivers.base_model import base_digest
from service.drivers.failpoints import Failpoint, reach
from service.drivers.plugins import check_finders
from service.drivers.scorers import check_scorers
from service.drivers.scratch import ADAPTER_NOTE, JOB, scratch
from service.ports import Blobs, Store
from service.processes import lower_priority
from service.settings import Recipe, Settings
from service.terminal import LOG_EVERY_S, Sparingly

log = logging.getLogger(__name__)

SHARES = {JobPhase.DATASET: 0.0, JobPhase.TRAINING: 0.05, JobPhase.EVALUATING: 0.8, JobPhase.PUBLISHING: 0.97}
"""Where each phase begins on the job's way from 0 to 1."""


@dataclass(frozen=True, slots=True)
class _Progress:
    """A phase's own progress as a part of the whole job's, with what is `always` in its detail; the log tells of it now
    and then."""

    lease: Lease
    always: Mapping[str, Any] = field(default_factory=dict)
    say: Callable[[str], None] = field(default_factory=lambda: Sparingly(log.info, LOG_EVERY_S))

    def __call__(self, phase: JobPhase, share: float, **detail: Any) -> None:
        reach(Failpoint.JOB_REPORTED)
        start = SHARES[phase]
        end = min((other for other in SHARES.values() if other > start), default=1.0)
        self.lease.report(phase, start + share * (end - start), **self.always, **detail)
        self.say(f"{phase} {share:.0%}: {told(detail)}")


@dataclass(frozen=True, slots=True)
class Spec:
    """What the controller asks for; times are Unix seconds. Rows after `onset` are new, those before it replay."""

    alias: str
    champion: str
    window_since: float
    onset: float
    until: float | None
    merge: Merge | None = None

    @classmethod
    def of(cls, job: Job) -> Spec:
        """Read the job's spec; without an onset all rows are new."""
        spec, since = job.spec, float(job.spec.get("window_since") or 0.0)
        until = spec.get("until")
        return cls(
            alias=str(spec.get("alias") or job.alias),
            champion=str(spec.get("champion") or BASE),
            window_since=since,
            onset=float(spec.get("onset") or since),
            until=None if until is None else float(until),
            merge=Merge.read(spec["merge"]) if spec.get("merge") else None,
        )


async def run_job(
    store: Store, blobs: Blobs, settings: Settings, job_id: str, holder: str, *, threads: int,
    clock: Callable[[], float] = time.time,
) -> Adapter:  # fmt: skip
    """Do the job and finish it in the store; a failure is recorded there with its one line, and raised.

    Raises:
        JobStopped: it was cancelled or taken over; nothing was published or recorded.
        TrimtabError: it failed.
    """
    knobs = settings.retrain
    async with hold(
        store, job_id, holder, heartbeat_s=knobs.heartbeat_s, stale_after_s=knobs.stale_after_s, clock=clock
    ) as lease:
        reach(Failpoint.JOB_CLAIMED)
        try:
            return await _work(store, blobs, settings, lease, threads, clock)
        except JobStopped:
            raise
        except Exception as error:
            log.exception("job %s failed", job_id)
            reach(Failpoint.JOB_FAILING)
            forget(settings, job_id)
            try:
                await store.fail(job_id, holder, error=one_line(error), now=clock())
            except StaleWrite as lost:
                raise JobStopped(lost.message) from error
            raise


async def _work(
    store: Store, blobs: Blobs, settings: Settings, lease: Lease, threads: int, clock: Callable[[], float]
) -> Adapter:
    spec, knobs, began = Spec.of(lease.job), settings.retrain, clock()
    if spec.merge is not None:
        knobs = knobs.model_copy(update={"recipe": Recipe.SFT_LORA})
    _check(settings)
    lease.report(JobPhase.DATASET, SHARES[JobPhase.DATASET])
    options = Options.of(knobs)
    await clear_checkpoints(store, settings)
    golden_path = settings.alias(spec.alias).golden_set
    golden = read_golden(golden_path) if golden_path else ()
    dataset = await _read(store, spec, golden, options)
    if spec.merge is None:
        require_enough(dataset, options)
    else:
        base = await asyncio.to_thread(base_digest, settings.model)
        dataset = await for_merging(store, dataset, spec.merge, options, base)
    reach(Failpoint.JOB_READ)
    log.info("dataset: %s", dataset.summary())
    await lease.send(store, now=clock())
    if spec.champion != BASE:
        await _require_base((await store.adapter(spec.champion)).base_digest, settings.model, f"{spec.champion} has")
    champion = None if spec.champion == BASE else await blobs.local(spec.champion)
    parents = [await blobs.local(name) for name in spec.merge.adapters] if spec.merge else []
    with scratch(settings.scratch_dir, JOB) as folder:
        work = Work(
            settings, spec.alias, lease.job.spec, dataset, golden, champion, options, folder, threads,
            checkpoint_path(settings, lease.job.id), spec.merge, parents,
        )  # fmt: skip
        made = await asyncio.to_thread(_make, work, lease)
        await lease.send(store, now=clock())
        await asyncio.to_thread(_note_name, folder, spec.alias, made.folder)
        reach(Failpoint.JOB_MADE)
        await _require_base(made.manifest["base_digest"], settings.model, "this job began with")
        adapter = await register_adapter(
            store, blobs, spec.alias, made.folder, settings.model, max_rank=settings.engine.max_lora_rank, now=clock(),
            cycle_id=lease.job.cycle_id, manifest=made.manifest,
        )  # fmt: skip
        reach(Failpoint.JOB_REGISTERED)
        judged, served = await _judged(store, settings, lease, adapter.name, spec, made, clock)
    stages = {**made.training.get("stage_seconds", {}), "evaluate": round(judged.seconds, 2)}
    result = {
        "adapter": adapter.name,
        "digest": adapter.digest,
        "evaluation": {**judged.evaluation, **served},
        "dataset": made.dataset.summary(),
        "training": {**made.training, "stage_seconds": stages},
        "manifest": made.manifest,
    }
    await store.finish(lease.job.id, lease.holder, result=result, now=clock())
    forget(settings, lease.job.id)
    reach(Failpoint.JOB_FINISHED)
    if knobs.mlflow_url is not None:
        await track(knobs.mlflow_url, lease.job, result, began=began, now=clock())
    return adapter


async def _require_base(wanted: str, model: str, who: str) -> None:
    """Raises Conflict where the base model is not the one that an adapter is for."""
    found = await asyncio.to_thread(base_digest, model)
    if found != wanted:
        raise Conflict(
            f"The base model {model} is not the one that {who}: its digest is {found[:12]}, not {wanted[:12]}; set "
            "`model` to that one, or roll the alias back to an adapter of this one first.",
            code="other_base",
        )


async def _judged(
    store: Store, settings: Settings, lease: Lease, adapter: str, spec: Spec, made: Made, clock: Callable[[], float]
) -> tuple[Judged, dict[str, Any]]:
    """The candidate in PyTorch and, at the same time, through the engines; `adapter` in the job's detail is what has
    the controller load it there."""
    if not made.questions:
        return await asyncio.to_thread(made.judge, _Progress(lease)), {}
    progress = _Progress(lease, {"adapter": adapter})
    progress(JobPhase.EVALUATING, 0.0)
    await lease.send(store, now=clock())
    asking = asyncio.create_task(
        ask_served(store, settings, adapter, spec.champion, made.questions, waiting=lease.require)
    )
    try:
        judged = await asyncio.to_thread(made.judge, progress)
        progress(JobPhase.PUBLISHING, 0.0, doing="asking the engines")
        asked = await asking
    finally:
        asking.cancel()
    served = compared(asked, made.questions, judged.expected, settings.alias(spec.alias), settings.retrain)
    log.info("through the engines: %s", served)
    return judged, {"served": served}


def _make(work: Work, lease: Lease) -> Made:
    """Import and run the heavy part, in a thread of its own, so that heartbeats go on."""
    began = time.monotonic()
    lower_priority(work.settings.retrain.nice)
    lease.report(JobPhase.TRAINING, SHARES[JobPhase.TRAINING], doing="loading libraries")
    from retrain_jobs.candidate import make

    return make(work, _Progress(lease), imported_s=time.monotonic() - began)


def _note_name(folder: Path, alias: str, made: Path) -> None:
    """Whoever clears up after a job that died before it registered the adapter finds its files by this."""
    (folder / ADAPTER_NOTE).write_text(str(adapter_name(alias, adapter_digest(read_adapter(made)))), "utf-8")


def _check(settings: Settings) -> None:
    """What can be known to fail is told before anything is read or imported."""
    if not settings.model:
        raise ConfigError("No base model is set; set `model` to a Hugging Face folder or id.", param="model")
    check_scorers(settings)
    check_finders(settings)
    check_languages(settings.retrain.languages)


async def _read(store: Store, spec: Spec, golden: tuple[GoldenItem, ...], options: Options) -> Dataset:
    """Twice as many rows as can be used: some of them will be left out."""
    limit = 2 * options.max_examples
    new = await store.window(
        spec.alias, since=spec.onset, until=spec.until, limit=limit, newest=True, labelled_only=True
    )
    replay = await store.window(
        spec.alias, since=spec.window_since, until=spec.onset, limit=limit, newest=True, labelled_only=True
    )
    imported = await store.imported(spec.alias, since=spec.onset, until=spec.until, limit=limit)
    earlier = await store.imported(spec.alias, since=0.0, until=spec.onset, limit=limit)
    dataset = await asyncio.to_thread(prepare, [*new, *imported], [*replay, *earlier], golden, options)
    asked = await store.window(spec.alias, since=spec.onset, until=spec.until, limit=limit, newest=True)
    return replace(dataset, selection=await asyncio.to_thread(selection, asked, seed=options.seed))
