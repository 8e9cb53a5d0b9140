"""What a team would stitch together: Evidently on windows of 1,000 requests, TRL's defaults, vLLM restarted.

Each part runs as a process of its own when its turn comes, as from a scheduler; traffic and base model are those of
Trimtab's own run. Labels come at once here, which is kinder than life.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.loop.recovery import (
    CALM,
    FEEDBACK_RATIO,
    MAX_TOKENS,
    NOVEL_RATIO,
    SEED,
    Recovery,
    recovered_at,
    worst_window,
)
from benchmarks.vllm_server import vllm_server
from demo.base_model import ensure_base_model
from demo.desk import support_desk
from demo.player import Player, quality

WINDOW = 1_000
MODEL = "support"


@dataclass(frozen=True, slots=True)
class Row:
    """A request with the reply that was right."""

    prompt: str
    target: str


class LabellingPlayer(Player):
    """Keeps what users say would have been right, where the stitched loop finds it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prompts: list[str] = []
        self.labelled: list[Row] = []

    async def asked(self, count: int) -> None:
        """Return once so many requests were sent."""
        while len(self.prompts) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.2)

    async def _one(self, http: aiohttp.ClientSession, ask: Any) -> None:
        self.prompts.append(ask.messages[-1]["content"])
        if self._random.random() < FEEDBACK_RATIO:
            self.labelled.append(Row(ask.messages[-1]["content"], ask.target))
        await super()._one(http, ask)

    async def _give_feedback(self, http: aiohttp.ClientSession, request_id: str, target: str) -> None:
        """There is nobody to give it to."""


class Engine:
    """A vLLM that serves one adapter, or none, under the alias's name; other weights take a restart."""

    def __init__(self, model: Path, folder: Path, port: int) -> None:
        self._model, self._folder, self.port = model, folder, port
        self._running: Any = None

    async def serve(self, adapter: Path | None) -> None:
        await self.stop()
        name = () if adapter else (f"--served-model-name={MODEL}",)
        adapters = {MODEL: adapter} if adapter else {}
        log = self._folder / "vllm.log"
        self._running = vllm_server(self._model, adapters, log, flags=name, port=self.port)
        await asyncio.to_thread(self._running.__enter__)

    async def stop(self) -> None:
        if self._running is not None:
            await asyncio.to_thread(self._running.__exit__, None, None, None)
            self._running = None


async def play_stitched(folder: Path, rate: float, port: int, limit_s: float) -> Recovery:
    """The same day with the stitched loop; it gives up `limit_s` after the onset."""
    model = await asyncio.to_thread(ensure_base_model)
    await asyncio.to_thread(folder.mkdir, parents=True)
    engine = Engine(model, folder, port)
    await engine.serve(None)
    player = LabellingPlayer(
        f"http://127.0.0.1:{port}", MODEL, support_desk,
        rate=rate, feedback_ratio=0.0, max_tokens=MAX_TOKENS, seed=SEED,
    )  # fmt: skip
    stop = asyncio.Event()
    playing = asyncio.create_task(player.play(stop))
    stages: dict[str, float] = {}
    try:
        await player.asked(WINDOW + CALM)
        onset = time.monotonic()
        player.novel_ratio = NOVEL_RATIO
        before = quality(player.answered[-CALM:])
        turning = asyncio.create_task(_turn(player, engine, model, folder, stages))
        while time.monotonic() < onset + limit_s and recovered_at(player.answered, onset, before) is None:
            if turning.done():
                await turning
            await asyncio.sleep(1.0)
        turning.cancel()
        await asyncio.gather(turning, return_exceptions=True)
    finally:
        stop.set()
        await playing
        await engine.stop()
    since = [one for one in player.answered if one.sent_at >= onset]
    found = recovered_at(player.answered, onset, before)
    return Recovery(
        seconds={name: at - onset for name, at in stages.items()},
        requests={name: sum(one.sent_at < at for one in since) for name, at in stages.items()},
        recovered_s=found[0] - onset if found else None,
        recovered_requests=found[1] if found else None,
        before=before, trough=worst_window(since), sent=len(player.answered),
        failed=sum(bool(one.error) for one in player.answered), tails={},
    )  # fmt: skip


async def _turn(player: LabellingPlayer, engine: Engine, model: Path, folder: Path, stages: dict[str, float]) -> None:
    """Window after window: where Evidently sees drift, train on the labels of the windows since then, and restart."""
    reference = player.prompts[:WINDOW]
    # The windows follow one another from the reference on, wherever the onset may lie.
    window, first_label, adapters = 1, len(player.labelled), 0
    while True:
        await player.asked((window + 1) * WINDOW)
        current = player.prompts[window * WINDOW : (window + 1) * WINDOW]
        window = max(window + 1, len(player.prompts) // WINDOW)
        if not await _drifted(folder, reference, current):
            continue
        stages.setdefault("drift noticed", time.monotonic())
        adapters += 1
        adapter = folder / f"adapter-{adapters}"
        rows = player.labelled[first_label:]
        await _run("benchmarks.loop.stitched_training", folder, {"rows": [asdict(row) for row in rows]}, model, adapter)
        stages.setdefault("adapter trained", time.monotonic())
        await engine.serve(adapter)
        stages.setdefault("restarted with it", time.monotonic())


async def _drifted(folder: Path, reference: Sequence[str], current: Sequence[str]) -> bool:
    told = await _run("benchmarks.loop.stitched_drift", folder, {"reference": reference, "current": current})
    return bool(json.loads(told.splitlines()[-1])["drifted"])


async def _run(module: str, folder: Path, given: Mapping[str, Any], *paths: Path) -> str:
    file = folder / f"{module.rpartition('.')[2]}.json"
    await asyncio.to_thread(file.write_text, json.dumps(given), "utf-8")
    argv = [sys.executable, "-m", module, str(file), *map(str, paths)]
    process = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE, start_new_session=True)
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"{module} ended with code {process.returncode}")
    return output.decode()
