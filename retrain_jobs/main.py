"""`python -m retrain_jobs --job JOB_ID [--config trimtab.yaml]`: do one queued retraining job.

With `--manifest` in the place of `--job`: make an adapter again from the record of how it was made. Started by
`accelerate launch`, torchrun or an Indexed Job, the process of rank 0 does it and the others share its steps.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from retrain_jobs.again import Again, find_manifest, make_again
from retrain_jobs.ahead import until_queued
from retrain_jobs.base import prepare_process
from retrain_jobs.job import run_job
from retrain_jobs.lease import JobStopped
from retrain_jobs.limits import one_line
from retrain_jobs.processes import LEADER, Place, beside
from service.core.errors import ConfigError, TrimtabError
from service.core.records import Adapter
from service.drivers.blobs import open_blobs
from service.drivers.store import open_store
from service.processes import GETTING_READY
from service.settings import Settings, load_settings

FAILED, MISCONFIGURED, STOPPED = 1, 2, 3
"""Exit codes; 0 is success."""

COLLECTS_AFTER = 50_000
"""Allocations. Importing makes a million objects that stay; looking through them after every 700, as is Python's way,
is a fifth of the time that importing takes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job. A failure is one line on standard error; the traceback goes to the job's log."""
    parser = argparse.ArgumentParser(prog="python -m retrain_jobs", description=__doc__)
    work = parser.add_mutually_exclusive_group(required=True)
    work.add_argument("--job", metavar="JOB_ID", help="a queued job's id")
    parser.add_argument("--cycle", metavar="ID", help="get ready, and wait for the job while this cycle is open")
    work.add_argument("--manifest", metavar="FILE|ADAPTER", help="make this adapter again; nothing is registered")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to keep what --manifest made")
    parser.add_argument("--config", type=Path, metavar="FILE", help="default: trimtab.yaml where there is one")
    given = parser.parse_args(arguments)
    gc.set_threshold(COLLECTS_AFTER)
    try:
        settings = load_settings(given.config)
        with beside(settings.retrain.processes, arguments or sys.argv[1:]) as place:
            knobs = settings.retrain
            reads_first = given.job is not None and place.rank == LEADER
            threads = prepare_process(
                knobs.threads, min(GETTING_READY, knobs.nice) if reads_first else knobs.nice, knobs.spin,
                sharing=place.local,
                beside_server=knobs.launcher == "subprocess",
            )  # fmt: skip
            with _together(place):
                if place.rank != LEADER:
                    _follow(settings, threads)
                    return 0
                return _lead(settings, given, threads)
    except JobStopped as error:
        return _say(error, STOPPED)
    except ConfigError as error:
        return _say(error, MISCONFIGURED)
    except Exception as error:
        return _say(error, FAILED)


@contextmanager
def _together(place: Place) -> Iterator[None]:
    """Within the block the processes, where there are several, know each other; whoever leads ends with all."""
    if place.size == 1:
        yield
        return
    from retrain_jobs.recipes.together import dismiss, join

    join()
    try:
        yield
    finally:
        if place.rank == LEADER:
            dismiss()


def _follow(settings: Settings, threads: int) -> None:
    from retrain_jobs.candidate import read_config
    from retrain_jobs.recipes.together import follow

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    knobs = settings.retrain
    max_length = read_config(knobs.recipe).max_length
    follow(settings.model, threads=threads, max_length=max_length, quantize=knobs.quantize)


def _lead(settings: Settings, given: argparse.Namespace, threads: int) -> int:
    if given.manifest is not None:
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        return _say_again(asyncio.run(_again(settings, given.manifest, given.out)))
    _log_to(settings.state_dir / "logs" / f"job-{Path(given.job).name}.log")
    print(asyncio.run(_run(settings, given.job, given.cycle, threads)).name)
    return 0


async def _run(settings: Settings, job_id: str, cycle_id: str | None, threads: int) -> Adapter:
    store = await open_store(settings.store_url)
    try:
        if cycle_id is not None:
            await until_queued(store, job_id, cycle_id)
        blobs = open_blobs(settings.blobs_url, settings.state_dir / "cache")
        holder = f"{os.uname().nodename}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        return await run_job(store, blobs, settings, job_id, holder, threads=threads)
    finally:
        await store.close()


async def _again(settings: Settings, manifest: str, out: Path | None) -> Again:
    store = await open_store(settings.store_url)
    try:
        blobs = open_blobs(settings.blobs_url, settings.state_dir / "cache")
        return await make_again(store, blobs, settings, await find_manifest(store, manifest), out)
    finally:
        await store.close()


def _say_again(again: Again) -> int:
    """0 when the digest is the one that was wanted, or none was."""
    print(again.digest)
    if again.same:
        return 0
    why = "; ".join(again.differences) or "this machine computes otherwise than the one that made it"
    print(f"error: the digest is not {again.wanted}: {why}", file=sys.stderr)
    return FAILED


def _log_to(path: Path) -> None:
    """The launcher's file, which is standard error already; at a terminal, that same file."""
    handler: logging.Handler
    if sys.stderr.isatty():
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
    else:
        handler = logging.StreamHandler()
    logging.basicConfig(level=logging.INFO, handlers=[handler], format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each question to an engine or a judge


def _say(error: Exception, code: int) -> int:
    if not isinstance(error, TrimtabError):
        logging.getLogger(__name__).error("%s", error, exc_info=error)
    print(f"error: {one_line(error)}", file=sys.stderr)
    return code
