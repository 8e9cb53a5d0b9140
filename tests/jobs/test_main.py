"""The command as the launcher runs it: exit codes, one line on failure, and nothing heavy imported in vain."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from service.core.records import JobStatus
from service.drivers.store import SqlStore
from service.settings import Settings
from tests.jobs.queue import enqueue
from tests.jobs.rows import ONSET, labelled

LISTING = (
    "import sys, runpy; sys.argv[0] = 'retrain_jobs'\ntry: runpy.run_module('retrain_jobs', run_name='__main__')\n"
)
LISTING += "finally: print(sorted({'torch', 'trl', 'transformers', 'pandas'} & sys.modules.keys()))"


def config_file(settings: Settings) -> Path:
    path = settings.state_dir / "trimtab.yaml"
    path.write_text(settings.model_dump_json(include={"model", "state_dir", "store", "blobs", "retrain", "engine"}))
    return path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def config(settings: Settings) -> str:
    return str(config_file(settings))


async def test_a_failure_is_one_line_and_comes_before_torch(store: SqlStore, config: str) -> None:
    await enqueue(store, [labelled("1", "hello", "x", at=ONSET + 1)])
    done = run("-c", LISTING, "--job", "j1", "--config", config)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: Too few examples to train on: 1 of 1 labelled rows")
    assert json.loads(done.stdout.replace("'", '"')) == []
    job = await store.job("j1")
    assert job.status is JobStatus.FAILED
    assert last == f"error: {job.error}"


@pytest.mark.parametrize(
    ("job", "code", "told"), [("nobody", 1, "There is no job 'nobody'."), ("../../etc/passwd", 1, "There is no job")]
)
def test_an_unknown_job_is_one_line(config: str, job: str, code: int, told: str) -> None:
    done = run("-m", "retrain_jobs", "--job", job, "--config", config)
    assert done.returncode == code
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def test_a_finished_job_is_not_done_again(store: SqlStore, config: str) -> None:
    await enqueue(store, [])
    await store.cancel("j1", now=ONSET)
    done = run("-m", "retrain_jobs", "--job", "j1", "--config", config)
    assert done.returncode == 1
    assert "cannot be taken: it is cancelled" in done.stderr
    assert (await store.job("j1")).status is JobStatus.CANCELLED


def test_a_missing_configuration_or_store_is_one_line(tmp_path: Path) -> None:
    missing = run("-m", "retrain_jobs", "--job", "j1", "--config", str(tmp_path / "none.yaml"))
    (tmp_path / "trimtab.yaml").write_text(f"state_dir: {tmp_path}\n")
    storeless = run("-m", "retrain_jobs", "--job", "j1", "--config", str(tmp_path / "trimtab.yaml"))
    for done, told in ((missing, "There is no configuration file"), (storeless, "There is no store")):
        assert done.returncode == 2
        assert told in done.stderr
        assert len(done.stderr.splitlines()) == 1
