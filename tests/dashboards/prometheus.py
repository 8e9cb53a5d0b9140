"""A real Prometheus for a test: scrapes the given targets every second, keeps its data in a temporary folder."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
RULE_FILES = (ROOT / "dashboards" / "rules.yaml", ROOT / "dashboards" / "alerts.yaml")
_START_TIMEOUT_S = 30.0


@contextmanager
def running_prometheus(
    targets: Mapping[str, str], *, rule_files: Sequence[Path] = RULE_FILES, bearer: str | None = None
) -> Iterator[str]:
    """Run Prometheus on a free port and yield its URL.

    Args:
        targets: job name → `host:port` of a process that serves /metrics.
        bearer: the key that the targets ask for, if they want one.
    """
    with tempfile.TemporaryDirectory(prefix="trimtab-prometheus-") as name:
        folder = Path(name)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(_config(targets, rule_files, bearer)), "utf-8")
        port = _free_port()
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    shutil.which("prometheus") or "prometheus",
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_ready(url, process, log)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def query(url: str, expr: str) -> list[dict[str, Any]]:
    """The instant vector that `expr` gives now: a list of {metric, value}."""
    question = urllib.parse.urlencode({"query": expr})
    result: list[dict[str, Any]] = _get(f"{url}/api/v1/query?{question}")["data"]["result"]
    return result


def shown(url: str, expr: str, *, last_s: float) -> list[dict[str, Any]]:
    """The series that a panel of the last `last_s` seconds has: a list of {metric, values}."""
    now = time.time()
    step_s = max(1.0, last_s / 500)
    question = urllib.parse.urlencode({"query": expr, "start": now - last_s, "end": now, "step": step_s})
    result: list[dict[str, Any]] = _get(f"{url}/api/v1/query_range?{question}")["data"]["result"]
    return result


def wait_scraped(url: str, targets: Mapping[str, str], *, times: int = 3, timeout_s: float = 60.0) -> None:
    """Return once every target was scraped at least `times` times; fail with what Prometheus says of the targets."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        seen = query(url, f"count_over_time((up == 1)[{int(timeout_s)}s:1s])")
        counts = {entry["metric"]["job"]: float(entry["value"][1]) for entry in seen}
        if all(counts.get(job, 0) >= times for job in targets):
            return
        time.sleep(0.2)
    told = [(t["scrapePool"], t["lastError"]) for t in _get(f"{url}/api/v1/targets")["data"]["activeTargets"]]
    raise AssertionError(f"not every target was scraped {times} times within {timeout_s:.0f} s: {told}")


def _config(targets: Mapping[str, str], rule_files: Sequence[Path], bearer: str | None) -> dict[str, Any]:
    auth = {"authorization": {"credentials": bearer}} if bearer else {}
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in rule_files],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [address]}], **auth} for job, address in targets.items()
        ],
    }


def _wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"prometheus ended: {log.read_text('utf-8')[-2000:]}")
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"prometheus was not ready within {_START_TIMEOUT_S:.0f} s: {log.read_text('utf-8')[-2000:]}")


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as reply:
        return json.load(reply)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
