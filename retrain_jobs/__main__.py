"""`python -m retrain_jobs --job JOB_ID [--config trimtab.yaml]`: do one queued retraining job."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from retrain_jobs.base import prepare_process
from retrain_jobs.job import one_line, run_job
from retrain_jobs.lease import JobStopped
from service.core.errors import ConfigError, TrimtabError
from service.core.records import Adapter
from service.drivers.blobs import open_blobs
from service.drivers.store import open_store
from service.settings import Settings, load_settings

FAILED, MISCONFIGURED, STOPPED = 1, 2, 3
"""Exit codes; 0 is success."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job. A failure is one line on standard error; the traceback goes to the job's log."""
    parser = argparse.ArgumentParser(prog="python -m retrain_jobs", description=__doc__)
    parser.add_argument("--job", required=True, metavar="JOB_ID", help="a queued job's id")
    parser.add_argument("--config", type=Path, metavar="FILE", help="default: trimtab.yaml where there is one")
    given = parser.parse_args(arguments)
    try:
        settings = load_settings(given.config)
        threads = prepare_process(settings.retrain.threads, settings.retrain.nice)
        _log_to(settings.state_dir / "logs" / f"job-{Path(given.job).name}.log")
        adapter = asyncio.run(_run(settings, given.job, threads))
    except JobStopped as error:
        return _say(error, STOPPED)
    except ConfigError as error:
        return _say(error, MISCONFIGURED)
    except Exception as error:
        return _say(error, FAILED)
    print(adapter.name)
    return 0


async def _run(settings: Settings, job_id: str, threads: int) -> Adapter:
    store = await open_store(settings.store_url)
    try:
        blobs = open_blobs(settings.blobs_url, settings.state_dir / "cache")
        holder = f"{os.uname().nodename}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        return await run_job(store, blobs, settings, job_id, holder, threads=threads)
    finally:
        await store.close()


def _log_to(path: Path) -> None:
    """The launcher's file, which is standard error already; at a terminal, that same file."""
    handler: logging.Handler
    if sys.stderr.isatty():
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
    else:
        handler = logging.StreamHandler()
    logging.basicConfig(level=logging.INFO, handlers=[handler], format="%(asctime)s %(name)s: %(message)s")


def _say(error: Exception, code: int) -> int:
    if not isinstance(error, TrimtabError):
        logging.getLogger(__name__).error("%s", error, exc_info=error)
    print(f"error: {one_line(error)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
