"""An alias swapped from adapter to adapter under load, on a real vLLM: `python -m benchmarks.hot_swap`.

Every adapter's greedy reply to every question is known beforehand, so each reply of the run proves which weights made
it, from its first token to its last. The engine computes in float32 and questions with near-ties are left out: a reply
then does not depend on what else was in its batch. `same_name_reload` does what Trimtab never does, to show that the
check would see it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import string
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import numpy as np
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.deployment import trimtab
from benchmarks.streamed import Streamed, ask
from benchmarks.tiny_model import save_adapter, save_model
from benchmarks.vllm_server import vllm_server
from service.core.names import adapter_name
from service.drivers.adapter_files import adapter_digest, read_adapter
from service.drivers.vllm import VllmEngine

ALIAS = "support"
START_S = 420.0
STREAMS = 32
TOKENS = 24
QUESTIONS = 8
CANDIDATES = 100
"""Questions tried, of which the first QUESTIONS without near-ties are taken."""

CLEAR = 1e-3
"""Between the two likeliest tokens, nats: a hundred times what float32's rounding moves."""

AFTER_S = 0.3
"""How long after the alias has moved its flip still counts as going on: longer than `gateway.routing_poll_s`."""

ENGINE_FLAGS = (
    "--dtype=float32",
    "--enable-lora",
    "--max-lora-rank=8",
    "--max-loras=4",
    "--max-cpu-loras=8",
    "--enable-prefix-caching",
    "--block-size=32",
)
SETTINGS: dict[str, Any] = {
    "aliases": {ALIAS: {}},
    "server": {"drain_s": 2.0},
    "controller": {"interval_s": 0.1},
}


@dataclass(frozen=True, slots=True)
class Known:
    """`replies[adapter][question]` is what the adapter's weights say; `questions` are the texts."""

    questions: tuple[str, ...]
    replies: dict[str, tuple[str, ...]]


@dataclass(slots=True)
class Run:
    """What clients saw, and when the alias moved: (begun, done), of `perf_counter`."""

    asked: list[tuple[int, Streamed]] = field(default_factory=list)
    swaps: list[tuple[float, float]] = field(default_factory=list)

    def verdicts(self, known: Known) -> Counter[str]:
        """`right`, `failed`, `another version` than the one named, or `no version`: what no single adapter says."""
        return Counter(verdict(reply, question, known) for question, reply in self.asked)

    def gaps(self) -> tuple[list[float], list[float]]:
        """Seconds between tokens: in steady state, and while a swap went on."""
        steady: list[float] = []
        swapping: list[float] = []
        begun, done = np.array(self.swaps).T
        for _, reply in self.asked:
            for at, gap in reply.gaps:
                last = int(np.searchsorted(begun, at, side="right")) - 1
                (swapping if last >= 0 and at <= done[last] + AFTER_S else steady).append(gap)
        return steady, swapping


def verdict(reply: Streamed, question: int, known: Known) -> str:
    if reply.fault:
        return "failed"
    if reply.models == {reply.adapter} and reply.text == known.replies[reply.adapter][question]:
        return "right"
    others = (replies[question] for replies in known.replies.values())
    return "another version" if reply.text in others else "no version"


def body(model: str, question: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    return {"model": model, "messages": messages, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}


async def learn(engine: str, folders: dict[str, Path]) -> Known:
    """Ask every adapter every question, alone and in company; keep questions whose replies are clear."""
    rng = random.Random(0)
    questions = ["".join(rng.choices(string.ascii_lowercase + " ", k=rng.randint(120, 200))) for _ in range(CANDIDATES)]
    said: dict[str, list[tuple[str, float]]] = {}
    driver = VllmEngine(engine)
    gate = asyncio.Semaphore(STREAMS)
    async with httpx.AsyncClient(trust_env=False, timeout=120.0) as http:

        async def one(name: str, question: str) -> tuple[str, float]:
            asked = body(name, question) | {"logprobs": True, "top_logprobs": 2}
            async with gate:
                choice = (await http.post(f"{engine}/v1/chat/completions", json=asked)).raise_for_status().json()
            choice = choice["choices"][0]
            pairs = [token["top_logprobs"] for token in choice["logprobs"]["content"]]
            return choice["message"]["content"], min(pair[0]["logprob"] - pair[1]["logprob"] for pair in pairs)

        for name, folder in folders.items():
            await driver.load(f"learn-{name}", str(folder))
            said[name] = list(await asyncio.gather(*(one(f"learn-{name}", question) for question in questions)))
            await driver.unload(f"learn-{name}")
    await driver.close()
    clear = [
        n
        for n in range(CANDIDATES)
        if all(replies[n][1] >= CLEAR for replies in said.values())
        and len({replies[n][0] for replies in said.values()}) == len(said)
    ][:QUESTIONS]
    if len(clear) < QUESTIONS:
        raise RuntimeError(f"Only {len(clear)} of {CANDIDATES} questions have clear replies; take fewer adapters.")
    replies = {name: tuple(told[n][0] for n in clear) for name, told in said.items()}
    return Known(tuple(questions[n] for n in clear), replies)


class Theatre:
    """A running service whose alias can be moved, and what its adapters are known to say."""

    def __init__(self, url: str, known: Known, engine: str, state: Path, http: httpx.AsyncClient) -> None:
        self.url = url
        self.known = known
        self._engine = engine
        self._state = state
        self._http = http

    async def add(self, folder: Path) -> None:
        """Register the adapter in `folder` under the name of its content."""
        await self._post("/api/v1/adapters", {"alias": ALIAS, "path": str(folder)})

    async def swap(self, adapter: str, *, timeout_s: float = 30.0) -> tuple[float, float]:
        """Load everywhere, verify, flip; the controller drains and unloads what nobody wants any more."""
        begun = perf_counter()
        await self._post(f"/api/v1/aliases/{ALIAS}/candidate", {"adapter": adapter})
        while True:
            reply = await self._http.post(
                f"{self.url}/api/v1/aliases/{ALIAS}/promote", json={"adapter": adapter, "reason": "the next swap"}
            )
            if reply.is_success:
                return begun, perf_counter()
            if reply.json()["error"]["code"] != "adapter_not_resident" or perf_counter() - begun > timeout_s:
                raise RuntimeError(f"{adapter} could not be promoted: {reply.text}")
            await asyncio.sleep(0.02)

    async def play(self, swaps: int, period_s: float) -> Run:
        """Keep the streams going while the alias moves from adapter to adapter."""
        run, over = Run(), asyncio.Event()
        names = list(self.known.replies)
        await self.swap(names[-1])
        streams = [asyncio.create_task(self._stream(run, over, number)) for number in range(STREAMS)]
        await asyncio.sleep(1.0)
        for number in range(swaps):
            due = perf_counter() + period_s
            run.swaps.append(await self.swap(names[number % len(names)]))
            await asyncio.sleep(max(0.0, due - perf_counter()))
        over.set()
        await asyncio.gather(*streams)
        return run

    async def same_name_reload(self) -> Run:
        """Put another adapter's weights under the champion's name and path, as a reload in place does."""
        run, over = Run(), asyncio.Event()
        names = list(self.known.replies)
        await self.swap(names[0])
        streams = [asyncio.create_task(self._stream(run, over, number)) for number in range(STREAMS)]
        await asyncio.sleep(1.0)
        folder = self._state / "adapters"
        await asyncio.to_thread(shutil.copytree, folder / names[1], folder / names[0], dirs_exist_ok=True)
        reload = {"lora_name": names[0], "lora_path": str(folder / names[0]), "load_inplace": True}
        began = perf_counter()
        (await self._http.post(f"{self._engine}/v1/load_lora_adapter", json=reload)).raise_for_status()
        run.swaps.append((began, perf_counter()))
        await asyncio.sleep(2.0)
        over.set()
        await asyncio.gather(*streams)
        return run

    async def _stream(self, run: Run, over: asyncio.Event, seed: int) -> None:
        rng = random.Random(seed)
        while not over.is_set():
            question = rng.randrange(len(self.known.questions))
            run.asked.append((question, await ask(self.url, body(ALIAS, self.known.questions[question]))))

    async def _post(self, path: str, content: dict[str, Any]) -> Any:
        reply = await self._http.post(f"{self.url}{path}", json=content)
        if reply.is_error:
            raise RuntimeError(f"{path}: {reply.text}")
        return reply.json()


@asynccontextmanager
async def theatre(folder: Path, engine: str, model: Path, made: Sequence[Path]) -> AsyncIterator[Theatre]:
    """A gateway and a controller over the engine, and the adapters in `made`, which say different things."""
    settings = {**SETTINGS, "model": str(model), "engines": [engine]}
    known = await learn(engine, {str(adapter_name(ALIAS, adapter_digest(read_adapter(path)))): path for path in made})
    async with (
        trimtab(folder / "trimtab", ["serve", "controller"], settings) as url,
        httpx.AsyncClient(trust_env=False, timeout=30.0) as http,
    ):
        stage = Theatre(url, known, engine, folder / "trimtab" / "state", http)
        for path in made:
            await stage.add(path)
        yield stage


@contextmanager
def engine(folder: Path, adapters: int) -> Iterator[tuple[str, Path, Sequence[Path]]]:
    """A real vLLM: its URL, its base model, and the folders of so many adapters made for it."""
    model = save_model(folder / "base")
    made = [save_adapter(folder / f"made{n}", model, seed=n, rank=8) for n in range(1, adapters + 1)]
    environment = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    with vllm_server(
        model, {}, folder / "vllm.log", flags=ENGINE_FLAGS, environment=environment, start_s=START_S
    ) as url:
        yield url, model, made


async def measure(options: argparse.Namespace, folder: Path, url: str, model: Path, made: Sequence[Path]) -> bool:
    async with theatre(folder, url, model, made) as stage:
        played = await stage.play(options.swaps, options.period)
        control = await stage.same_name_reload()
    seen, caught = played.verdicts(stage.known), control.verdicts(stage.known)
    steady, swapping = (float(np.quantile(gaps, 0.99)) for gaps in played.gaps())
    took = [done - begun for begun, done in played.swaps]
    table = Table("row", "measured", "target", title=f"{len(played.swaps)} swaps under {STREAMS} streams, real vLLM")
    table.add_row("replies", f"{len(played.asked)}", "")
    table.add_row("failed", f"{seen['failed']}", "0")
    table.add_row("mixing versions, or of no version", f"{seen['no version']}", "0")
    table.add_row("from another version than the one named", f"{seen['another version']}", "0")
    table.add_row("p99 between tokens, steady", f"{steady * 1e3:.1f} ms", "")
    told = f"{swapping * 1e3:.1f} ms, {swapping / steady:.2f}x"
    table.add_row("p99 between tokens, from load to 0.3 s after the flip", told, "≤ 1.5x")
    table.add_row("from load to flip, median and longest", f"{np.median(took):.2f} s, {max(took):.2f} s", "")
    wrong = caught["no version"] + caught["another version"]
    told = f"{wrong} wrong of {len(control.asked)} ({caught['no version']} of no version)"
    table.add_row("negative control, a reload under the same name", told, "> 0")
    Console(width=130).print(table)
    for question, reply in played.asked:
        if (why := verdict(reply, question, stage.known)) != "right":
            print(f"{why}: {reply.adapter} {reply.fault or reply.text}", file=sys.stderr)
    return set(seen) <= {"right"} and wrong > 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("--period", type=float, default=1.0, help="seconds from one swap to the next")
    parser.add_argument("--adapters", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, engine(Path(name), options.adapters) as (url, model, made):
        return 0 if uvloop.run(measure(options, Path(name), url, model, made)) else 1


if __name__ == "__main__":
    sys.exit(main())
