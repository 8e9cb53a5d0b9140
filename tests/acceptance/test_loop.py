"""The whole loop on real parts: a real vLLM, real training, real traffic, a real Prometheus."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from dashboards.replay import panel_queries
from demo.base_model import ensure_base_model
from demo.desk import golden_set, support_desk
from demo.player import Player
from demo.stage import ALIAS, running, write_stage
from demo.story import Outcome, Plot, Progress, Stage, tell
from service.core.errors import TrimtabError
from tests.dashboards.prometheus import running_prometheus, shown

pytestmark = [pytest.mark.acceptance, pytest.mark.alone, pytest.mark.asyncio(loop_scope="module")]

ROOT = Path(__file__).parents[2]
NOISE = 0.06
"""Two standard errors of the difference between two shares of about 0.9 over 200 requests each."""

MIN_PAIRS, GOLDEN_MARGIN = 30, 0.05

PLOT = Plot(ALIAS, reference_size=300, current_size=80, judged=200, novel_ratio=0.5, patience_s=400.0)
SIZES = {
    "drift": {"reference_size": 300, "current_size": 80, "interval_s": 1.0},
    "promotion": {"min_pairs": MIN_PAIRS, "watch_s": 600.0, "golden_margin": GOLDEN_MARGIN},
}


@dataclass(frozen=True)
class Told:
    url: str
    outcome: Outcome
    progress: Progress
    folder: Path
    prometheus: str


def free_ports(n: int) -> int:
    """The first of `n` free ports in a row."""
    for first in range(21000, 29000, n):
        try:
            for port in range(first, first + n):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Told]:
    if shutil.which("prometheus") is None:
        message = "prometheus is not installed: apt-get install prometheus"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    model = await asyncio.to_thread(ensure_base_model)
    folder = tmp_path_factory.mktemp("loop") / "stage"
    port = free_ports(3)
    config = write_stage(folder, model, golden_set(5), port=port, sizes=SIZES)
    url = f"http://127.0.0.1:{port}"
    targets = {"gateway": f"127.0.0.1:{port}", "controller": f"127.0.0.1:{port + 1}", "engine": f"127.0.0.1:{port + 2}"}
    async with running(config, url):
        with running_prometheus(targets) as prometheus:
            player = Player(url, ALIAS, support_desk, rate=10.0, feedback_ratio=0.9, max_tokens=48, seed=5)
            stop, progress = asyncio.Event(), Progress()
            playing = asyncio.create_task(player.play(stop))
            try:
                outcome = await tell(PLOT, player, url, progress)
                yield Told(url, outcome, progress, folder, prometheus)
            except TrimtabError as error:
                pytest.fail(f"{error.message}\n{logs(folder)}")
            finally:
                stop.set()
                await playing


def logs(folder: Path) -> str:
    """The end of every process's log, for whoever reads a failure."""
    found = sorted((folder / "state" / "logs").glob("*.log"))
    return "\n".join(f"--- {log.name}\n{log.read_text('utf-8', 'replace')[-1500:]}" for log in found)


async def test_quality_falls_and_recovers_and_no_request_fails(told: Told) -> None:
    outcome = told.outcome
    assert outcome.errors == ()
    assert outcome.failed == 0
    assert outcome.before >= 0.75
    assert outcome.trough <= outcome.before - 0.2
    assert outcome.after >= outcome.before - 0.05 - NOISE
    assert list(outcome.seconds) == [stage for stage in Stage if stage is not Stage.CALM]


async def test_the_new_champion_serves_and_the_cycle_explains_itself(told: Told) -> None:
    async with httpx.AsyncClient(base_url=told.url, trust_env=False) as http:
        alias = (await http.get(f"/api/v1/aliases/{ALIAS}")).json()
        cycle = (await http.get(f"/api/v1/cycles/{told.progress.cycle['id']}")).json()
        adapter = (await http.get(f"/api/v1/adapters/{alias['champion']}")).json()
    assert alias["champion"].startswith(f"{ALIAS}@")
    assert alias["previous"] == "base"
    assert cycle["state"] == "watching"
    assert cycle["evidence"]["drift"]["reasons"]
    golden = cycle["evidence"]["job"]["evaluation"]["golden"]
    assert golden["candidate"] >= golden["champion"] - GOLDEN_MARGIN
    served = cycle["evidence"]["job"]["evaluation"]["served"]
    assert served["agrees"], served
    assert (served["n"], served["failed"]) == (48, 0)
    assert served["ttft"]["n"] > 0
    assert cycle["evidence"]["shadow"]["decision"] == "promote"
    assert cycle["evidence"]["shadow"]["pairs"] >= MIN_PAIRS
    assert adapter["resident"]
    assert adapter["manifest"]
    kinds = [event["kind"] for event in cycle["events"]]
    assert kinds.count("cycle.open") == 1


async def test_the_drift_report_is_kept_and_served(told: Told) -> None:
    check = told.progress.cycle["evidence"]["drift"]["check"]
    async with httpx.AsyncClient(base_url=told.url, trust_env=False) as http:
        report = await http.get(f"/api/v1/drift/{check}/report")
    assert report.status_code == 200
    assert "text/html" in report.headers["content-type"]
    assert len(report.content) > 10_000


async def test_every_panel_has_data(told: Told) -> None:
    dashboard: dict[str, Any] = json.loads((ROOT / "dashboards" / "grafana" / "trimtab.json").read_text("utf-8"))
    # A training's own panels are empty again once it is over.
    queries = panel_queries(dashboard)
    empty = [f"{title}: {expr}" for title, expr in queries if not shown(told.prometheus, expr, last_s=1800.0)]
    assert empty == []


async def test_rollback_serves_the_previous_adapter_within_a_second_of_its_call(told: Told) -> None:
    body = {"model": ALIAS, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
    async with httpx.AsyncClient(base_url=told.url, trust_env=False, timeout=30.0) as http:
        before = await http.post("/v1/chat/completions", json=body)
        assert before.headers["x-trimtab-adapter"].startswith(f"{ALIAS}@")
        process = await asyncio.create_subprocess_exec(
            str(ROOT / ".venv" / "bin" / "trimtab") if (ROOT / ".venv").exists() else "trimtab",
            "rollback", ALIAS, "--reason", "test", "--json", "--url", told.url,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await process.communicate()
        assert process.returncode == 0, out
        called = time.monotonic()
        after = await http.post("/v1/chat/completions", json=body)
        assert after.headers["x-trimtab-adapter"] == "base"
        assert time.monotonic() - called < 1.0
        cycle = (await http.get(f"/api/v1/cycles/{told.progress.cycle['id']}")).json()
    assert cycle["state"] == "rolled_back"
