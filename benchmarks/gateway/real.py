"""Over a real vLLM: what `vllm bench serve` measures directly and through the gateway, in turns.

The engine has a core of its own; the gateway and the client share the other, so that neither arm takes CPU time from
the engine. The model has 50 million parameters, and with `--full` also 4 million: the smaller the model, the more
tokens a second the gateway has to carry, and the more of a step's time log-probabilities are.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.gateway.arms import HttpArm
from benchmarks.gateway.capture import RECORDS, VARIANTS, share
from benchmarks.gateway.ours import gateway
from benchmarks.gateway.plan import Plan, turns
from benchmarks.gateway.process import module, on_cores
from benchmarks.gateway.table import OURS, Bound, Part, Row
from benchmarks.tiny_model import save_model
from benchmarks.traffic import texts
from benchmarks.vllm_server import vllm_server

CONCURRENT, REPLY = 32, 64
_DIRECT = "vLLM direct"
_LEAN = f"{OURS}, {RECORDS}"
_FLAGS = ("--enforce-eager", "--scheduling-policy=priority", "--disable-uvicorn-access-log")
"""As `trimtab engine` starts it."""


@dataclass(frozen=True, slots=True)
class Size:
    """A model's width, its name, and how many requests a second it answers on one core, or less."""

    width: int
    name: str
    requests_a_second: int


_SMALL, _TINY = Size(1024, "50 M", 16), Size(256, "4 M", 32)


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of `vllm bench serve`."""

    tokens_per_s: float
    ttft_ms: float
    faults: tuple[str, ...]


async def measure_real(plan: Plan) -> Part:
    parts = [await _measure(plan, size) for size in ((_SMALL, _TINY) if plan.full else (_SMALL,))]
    return Part([row for part in parts for row in part.rows], [note for part in parts for note in part.notes])


async def _measure(plan: Plan, size: Size) -> Part:
    async with AsyncExitStack() as stack:
        model = await asyncio.to_thread(save_model, plan.folder / f"model-{size.width}", width=size.width)
        with on_cores(plan.cores.others):
            engine = stack.enter_context(
                vllm_server(model, {}, plan.folder / f"vllm-{size.width}.log", flags=_FLAGS, start_s=600)
            )
        arms = [HttpArm(_DIRECT, f"{engine}/v1", model="base")]
        for number, (name, changes) in enumerate(((OURS, {}), (_LEAN, VARIANTS[RECORDS]))):
            folder = plan.place(f"real-{size.width}-{number}")
            arms.append(
                await stack.enter_async_context(gateway(folder, engine, plan.cores, name=name, changes=changes))
            )
        bench = _Bench(model, plan, size)
        await asyncio.to_thread(bench.run, arms[0])  # the engine's first batches are slow
        samples: dict[str, list[Sample]] = {arm.name: [] for arm in arms}
        for arm in turns(arms, plan.rounds):
            samples[arm.name].append(await asyncio.to_thread(bench.run, arm))
    faults = {name: [fault for sample in found for fault in sample.faults] for name, found in samples.items()}
    notes = [
        f"{name}: {len(found)} requests failed, the first by {found[0]!r}" for name, found in faults.items() if found
    ]
    notes.append(
        f"vLLM on one core, {size.name} parameters, {CONCURRENT} requests at a time, 8 to 40 tokens in, {REPLY} out"
    )
    return Part(rows(samples, f"real vLLM, {size.name} parameters"), notes)


class _Bench:
    """Runs vLLM's own load generator on the gateway's core; no two runs send the same prompts."""

    def __init__(self, model: Path, plan: Plan, size: Size) -> None:
        self._model = model
        self._size = size
        self._plan = plan
        self._seed = 0

    def run(self, arm: HttpArm) -> Sample:
        self._seed += 1
        result = self._plan.folder / f"bench-{self._size.width}-{self._seed}.json"
        count = max(2 * CONCURRENT, round(self._plan.seconds * self._size.requests_a_second))
        prompts = self._plan.folder / f"prompts-{self._size.width}-{self._seed}.jsonl"
        prompts.write_text("".join(f'{{"prompt": "{line}"}}\n' for line in texts(count, seed=self._seed)), "utf-8")
        argv = module("benchmarks.gateway.vllm_bench", "--backend", "openai-chat")
        argv += ["--base-url", arm.base_url.removesuffix("/v1"), "--endpoint", "/v1/chat/completions"]
        argv += ["--model", str(self._model), "--served-model-name", arm.model, "--dataset-name", "custom"]
        argv += ["--dataset-path", str(prompts), "--custom-output-len", str(REPLY), "--skip-chat-template"]
        argv += ["--num-prompts", str(count), "--num-warmups", str(CONCURRENT), "--max-concurrency", str(CONCURRENT)]
        argv += ["--ignore-eos", "--temperature", "0", "--ready-check-timeout-sec", "0", "--disable-tqdm"]
        argv += ["--save-result", "--save-detailed", "--result-filename", str(result)]
        if arm.key is not None:
            argv += ["--header", f"authorization=Bearer {arm.key}"]
        with on_cores(self._plan.cores.tested):
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"vllm bench serve failed: {' '.join((done.stdout + done.stderr).split())[-600:]}")
        told = json.loads(result.read_text("utf-8"))
        faults = tuple(error.strip().splitlines()[-1] for error in told["errors"] if error)
        return Sample(told["output_throughput"], told["median_ttft_ms"], faults)


def rows(samples: dict[str, list[Sample]], what: str) -> list[Row]:
    """Each round's figure against the direct one of the same round; medians over rounds."""
    direct = samples[_DIRECT]
    speeds = {name: [s.tokens_per_s for s in found] for name, found in samples.items()}
    ratio = {name: share(speeds[name], speeds[_DIRECT]) for name in (OURS, _LEAN)}
    waits = {name: median(s.ttft_ms for s in found) for name, found in samples.items()}
    later = {
        name: median(s.ttft_ms - d.ttft_ms for s, d in zip(samples[name], direct, strict=True))
        for name in (OURS, _LEAN)
    }
    allowed_ms = 1.0 + 0.02 * waits[_DIRECT]
    return [
        Row(f"{what}: tokens", "/s", median(speeds[OURS]), None, {_DIRECT: median(speeds[_DIRECT])}),
        Row(f"{what}: of vLLM's tokens/s", "x", ratio[OURS], Bound(0.98, at_least=True), {_LEAN: ratio[_LEAN]}),
        Row(f"{what}: time to first token", "ms", waits[OURS], None, {_DIRECT: waits[_DIRECT]}),
        Row(f"{what}: added to it (1 ms + 2%)", "ms", later[OURS], Bound(allowed_ms), {_LEAN: later[_LEAN]}),
    ]
