"""What an MLflow server is told of a job, and that none can hold a job up. The server here is a double on real HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from retrain_jobs import tracking
from retrain_jobs.job import run_job
from retrain_jobs.tracking import metrics_of, params_of, track
from service.core.records import Job, JobStatus
from service.drivers.blobs import open_blobs
from service.drivers.store import SqlStore
from service.settings import RetrainSettings, Settings
from tests.jobs.queue import enqueue, traffic

JOB = Job("j1", "c1", "support", JobStatus.RUNNING, 1.0, 1.0)
RESULT: dict[str, Any] = {
    "adapter": "support@0123456789ab", "digest": "d" * 64,
    "dataset": {"kept": 4, "dropped": {"too_long": 1}, "imported": {"import:/home/ada/labels.csv": 2}},
    "training": {"steps": 8, "seconds": 1.5, "train_loss": [[1, 2.0], [2, 1.0]], "heldout_loss": [[2, 1.5]]},
    "evaluation": {
        "heldout": {"new": {"champion": 0.25, "candidate": 0.75, "ci": [0.1, 0.9], "n": 4}},
        "classes": [{"name": "someone's words", "n": 3}], "golden": {"delta": float("nan"), "better": True},
    },
    "manifest": {
        "settings": {"rank": 8, "learning_rate": None}, "recipe": {"targets": "all-linear"},
        "job": {"champion": "base"}, "dataset": {"digest": "e" * 64}, "base_digest": "b" * 64, "code": "1+abc",
    },
}  # fmt: skip


class Double(ThreadingHTTPServer):
    """Says what MLflow says to these calls, and keeps them; not MLflow."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, dict[str, Any], str | None]] = []
        self.experiments: list[str] = []
        self.fault: tuple[int, bytes] | None = None
        self.hang = threading.Event()
        self.hang.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def reply(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path.startswith("/experiments/get-by-name"):
            known = self.experiments
            return (200, {"experiment": {"experiment_id": "7"}}) if known else (404, {"error_code": "NONE"})
        if path == "/experiments/create":
            self.experiments.append(body["name"])
            return 200, {"experiment_id": "7"}
        return 200, {"run": {"info": {"run_id": "r1"}}}


class _Handler(BaseHTTPRequestHandler):
    server: Double

    def do_POST(self) -> None:
        self.server.hang.wait(5.0)
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        assert self.path.startswith("/api/2.0/mlflow/")
        path = self.path.removeprefix("/api/2.0/mlflow")
        self.server.asked.append((path, body, self.headers.get("authorization")))
        status, answer = self.server.reply(path, body)
        content = json.dumps(answer).encode()
        if self.server.fault is not None:
            status, content = self.server.fault
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Double]:
    with Double() as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield one
        one.hang.set()
        one.shutdown()


async def test_a_run_has_settings_curves_and_figures(server: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tracking.TOKEN, "t0ken")
    assert await track(server.url, JOB, RESULT, began=10.0, now=12.5)
    paths = [path.split("?")[0] for path, _, _ in server.asked]
    assert paths == [
        "/experiments/get-by-name", "/experiments/create", "/runs/create", "/runs/log-batch", "/runs/log-batch",
        "/runs/update",
    ]  # fmt: skip
    assert server.experiments == ["trimtab/support"]
    assert {key for _, _, key in server.asked} == {"Bearer t0ken"}
    created, params, metrics, closed = (body for _, body, _ in server.asked[2:])
    assert (created["experiment_id"], created["run_name"], created["start_time"]) == ("7", RESULT["adapter"], 10_000)
    assert {"key": "trimtab.job", "value": "j1"} in created["tags"]
    assert {"key": "rank", "value": "8"} in params["params"]
    assert {"key": "train_loss", "value": 1.0, "step": 2, "timestamp": 12_500} in metrics["metrics"]
    assert closed == {"run_id": "r1", "status": "FINISHED", "end_time": 12_500}

    await track(server.url, JOB, RESULT, began=10.0, now=12.5)
    assert server.experiments == ["trimtab/support"], "an experiment that is there is not made again"


def test_numbers_go_there_and_words_do_not() -> None:
    metrics = {name: value for name, value, step in metrics_of(RESULT) if step == 8}
    assert metrics["evaluation/heldout/new/candidate"] == 0.75
    assert (metrics["evaluation/heldout/new/ci/low"], metrics["evaluation/heldout/new/ci/high"]) == (0.1, 0.9)
    assert metrics["dataset/dropped/too_long"] == 1
    assert metrics["training/seconds"] == 1.5
    assert not any("nan" in str(value) for value in metrics.values())
    sent = f"{metrics}{params_of(RESULT)}"
    assert "ada" not in sent.replace("adapter", "")
    assert "someone" not in sent
    assert params_of(RESULT)["base_digest"] == "b" * 64


@pytest.mark.parametrize("fault", [(500, b"oops"), (200, b"<html>"), (200, b"[]"), (200, b"{}"), (403, b"{}")])
async def test_a_server_that_says_something_else_is_a_line_in_the_log(
    server: Double, fault: tuple[int, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    server.fault = fault
    assert not await track(server.url, JOB, RESULT, began=0.0, now=1.0)
    (line,) = [record.getMessage() for record in caplog.records if record.name == tracking.__name__]
    assert "the run is not recorded there" in line
    assert "\n" not in line


async def test_a_server_that_is_silent_or_away_costs_little_time(
    server: Double, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracking, "LIMIT_S", 0.3)
    server.hang.clear()
    began = time.monotonic()
    assert not await track(server.url, JOB, RESULT, began=0.0, now=1.0)
    assert not await track("http://127.0.0.1:9", JOB, RESULT, began=0.0, now=1.0)
    assert time.monotonic() - began < 2.0
    assert len([line for line in caplog.messages if "the run is not recorded there" in line]) == 2


@pytest.mark.parametrize("away", [False, True])
async def test_a_job_is_recorded_and_a_server_that_is_away_does_not_fail_it(
    store: SqlStore, settings: Settings, tiny_base: Path, server: Double, away: bool
) -> None:
    knobs = settings.retrain.model_copy(update={"epochs": 1.0, "mlflow_url": server.url})
    service = settings.model_copy(update={"model": str(tiny_base), "retrain": knobs})
    if away:
        server.fault = (500, b"")
    await enqueue(store, traffic())
    blobs = open_blobs(service.blobs_url, service.state_dir / "cache")
    adapter = await asyncio.wait_for(run_job(store, blobs, service, "j1", "me", threads=1), 60.0)
    assert (await store.job("j1")).status is JobStatus.SUCCEEDED
    if not away:
        metrics = [metric["key"] for _, body, _ in server.asked for metric in body.get("metrics", ())]
        assert {"train_loss", "heldout_loss", "evaluation/heldout/all/candidate", "evaluation/golden/n"} <= set(metrics)
        assert server.asked[2][1]["run_name"] == adapter.name


@pytest.mark.parametrize("url", ["mlflow:5000", "file:///tmp/runs", "http://user:pw@mlflow", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        RetrainSettings(mlflow_url=url)
