"""Sets the demo's stage: the base model, a golden set, a trimtab.yaml, and the whole service as one child process."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from demo.player import Ask
from demo.story import StoryFailed
from service.processes import Child, ChildSpec, last_line

ALIAS = "support"
READY_S = 240.0


def write_stage(
    folder: Path, model: Path, golden: Sequence[Ask], *, port: int, sizes: Mapping[str, Any] | None = None
) -> Path:
    """Write golden set and settings for a fresh service under `folder`; return the path of its trimtab.yaml.

    `sizes` overrides sections of the settings, for a smaller or larger story.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    golden_file = folder / "golden.jsonl"
    rows = [json.dumps({"messages": list(ask.messages), "expected": ask.target}) for ask in golden]
    golden_file.write_text("\n".join(rows) + "\n", "utf-8")
    settings: dict[str, Any] = {
        "model": str(model),
        "state_dir": str(folder / "state"),
        "aliases": {ALIAS: {"scorer": "exact", "golden_set": str(golden_file)}},
        "server": {"port": port, "controller_metrics_port": port + 1},
        "engine": {"port": port + 2, "max_model_len": 512, "max_num_seqs": 64},
        "drift": {"reference_size": 300, "current_size": 100, "interval_s": 2.0},
        "retrain": {
            "rank": 16,
            "alpha": 32,
            "dropout": 0.0,
            "epochs": 4,
            "replay_ratio": 0.33,  # half of the new rows are old topics, too
            "batch_size": 8,  # beside a server tokens are dear: more steps of fewer learn sooner
            "max_seconds": 240.0,  # a quarter of it is enough where cores are fast
            "min_new_examples": 400,
        },
        "promotion": {"min_pairs": 40, "watch_s": 60.0, "cooldown_s": 5.0, "golden_margin": 0.05},
        "mirror": {"ratio": 1.0, "max_in_flight": 1},  # on two cores each shadow is felt
    }
    for section, values in (sizes or {}).items():
        settings[section] = {**settings.get(section, {}), **values}
    config = folder / "trimtab.yaml"
    config.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    return config


@asynccontextmanager
async def running(config: Path, url: str) -> AsyncIterator[Child]:
    """`trimtab up` on `config`, ready to serve; stopped at the end.

    Raises:
        StoryFailed: it ended or was not ready in time; its log's last line says why.
    """
    log = config.parent / "up.log"
    argv = [sys.executable, "-m", "service", "up", "--config", str(config)]
    child = await Child.start(ChildSpec("trimtab up", argv, log, stop_timeout_s=60.0))
    try:
        await _wait_ready(child, url, log)
        yield child
    finally:
        await child.stop()


async def _wait_ready(child: Child, url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    async with httpx.AsyncClient(trust_env=False, timeout=2.0) as http:
        while time.monotonic() < deadline:
            if child.returncode is not None:
                raise StoryFailed(f"The service ended: {last_line(log)} (log: {log})")
            try:
                if (await http.get(f"{url}/ready")).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.5)
    raise StoryFailed(f"The service was not ready within {READY_S:.0f} s; its logs are under {config_logs(log)}.")


def config_logs(log: Path) -> Path:
    return log.parent / "state" / "logs"
