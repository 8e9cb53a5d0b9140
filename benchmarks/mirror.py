"""What clients feel of shadow traffic near saturation, on a real vLLM: `python -m benchmarks.mirror`.

Four arms take turns over one engine, with the same arrivals and questions in a round: no mirror, the same again (what
differs between these two is chance), the mirror with its gate, and the mirror without limits, with lulls and vLLM's
request priority alone. Clients' requests come at random (a Poisson process) at a share of what the engine can do, and a
fifth of them is offered to the candidate.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import string
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import httpx
import numpy as np
import uvloop
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from benchmarks.deployment import trimtab
from benchmarks.streamed import Streamed, ask
from benchmarks.tiny_model import save_adapter, save_model
from benchmarks.vllm_server import vllm_server
from service.core.records import Adapter, EngineView
from service.drivers.adapter_files import register_adapter
from service.drivers.blobs import open_blobs
from service.drivers.store import open_store
from service.drivers.vllm import VllmEngine
from service.ports import Store

ALIAS = "support"
MIRRORED = 0.2
START_S = 420.0
MAX_LORAS = 2
RUNTIME_LORA = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
ENGINE_FLAGS = ("--scheduling-policy=priority", "--enable-lora", f"--max-loras={MAX_LORAS}")
OFF, AGAIN, MIRROR = "no mirror", "no mirror, again", "mirror"
ARMS: dict[str, dict[str, Any]] = {
    OFF: {},
    AGAIN: {},
    MIRROR: {},
    "lulls and priority": {"max_in_flight": 1000, "max_live_ratio": 1.0, "token_ratio": 1000.0},
}
"""Settings of each arm's mirror."""
UNMIRRORED = (OFF, AGAIN)


@dataclass(frozen=True, slots=True)
class Plan:
    """A round: when to send, seconds from its start, and what."""

    due_s: tuple[float, ...]
    bodies: tuple[dict[str, Any], ...]


@dataclass(slots=True)
class Arm:
    """What its rounds brought: whole replies, how many failed, and what became of its shadows."""

    rounds: list[list[Streamed]] = field(default_factory=list)
    failed: int = 0
    shadows: dict[str, float] = field(default_factory=dict)


def question(rng: random.Random) -> dict[str, Any]:
    text = "".join(rng.choices(string.ascii_lowercase + " ", k=rng.randint(30, 160)))
    return {
        "model": ALIAS,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": rng.randint(24, 96),
        "temperature": 0,
        "ignore_eos": True,
    }


def plan(rate: float, seconds: float, seed: int) -> Plan:
    rng = random.Random(seed)
    due = [rng.expovariate(rate)]
    while due[-1] < seconds:
        due.append(due[-1] + rng.expovariate(rate))
    return Plan(tuple(due), tuple(question(rng) for _ in due))


async def capacity(url: str, seconds: float, connections: int = 64) -> float:
    """Requests a second in a closed loop, shadows off."""
    rng, answered, started = random.Random(0), 0, perf_counter()

    async def client() -> None:
        nonlocal answered
        while perf_counter() - started < seconds:
            reply = await ask(url, question(rng))
            answered += not reply.fault

    await asyncio.gather(*(client() for _ in range(connections)))
    return answered / (perf_counter() - started)


async def play(url: str, planned: Plan) -> list[Streamed]:
    """Send on time whatever the service does."""
    started = perf_counter()
    asked = []
    for due, body in zip(planned.due_s, planned.bodies, strict=True):
        await asyncio.sleep(max(0.0, started + due - perf_counter()))
        asked.append(asyncio.create_task(ask(url, body)))
    return list(await asyncio.gather(*asked))


@asynccontextmanager
async def stage(
    folder: Path, model: Path, made: Sequence[Path], engine: str, rank: int
) -> AsyncIterator[tuple[Store, Mapping[str, str], Adapter]]:
    """Champion and candidate on the engine, and a gateway for each arm; yields store, gateways' URLs, candidate."""
    state = folder / "state"
    store = await open_store(f"sqlite+aiosqlite:///{state / 'trimtab.db'}", migrate=True)
    blobs = open_blobs((state / "adapters").absolute().as_uri(), state / "cache")
    await store.add_alias(ALIAS, now=0.0)
    driver = VllmEngine(engine)
    try:
        added = [await register_adapter(store, blobs, ALIAS, path, str(model), max_rank=rank, now=0.0) for path in made]
        for adapter in added:
            await driver.load(adapter.name, await blobs.local(adapter.name))
        champion, candidate = added
        await store.report_engines([EngineView(engine, True, frozenset(a.name for a in added), 0.0, "base")])
        await store.promote(ALIAS, champion.name, actor="benchmark", reason="", now=0.0)
        settings = {
            "model": str(model),
            "engines": [engine],
            "engine": {"max_loras": MAX_LORAS},
            "store": {"url": f"sqlite+aiosqlite:///{state / 'trimtab.db'}"},
        }
        async with AsyncExitStack() as stack:
            urls = {}
            for name, mirror in ARMS.items():
                gateway = trimtab(
                    folder / name.replace(" ", "-").replace(",", ""), ["serve"], {**settings, "mirror": mirror}
                )
                urls[name] = await stack.enter_async_context(gateway)
            yield store, urls, candidate
    finally:
        await driver.close()
        await store.close()


async def shadows(url: str) -> dict[str, float]:
    """The mirror's counters, by outcome and by reason."""
    async with httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"{url}/metrics")).text
    told = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in {"trimtab_mirror_requests_total", "trimtab_mirror_shed_total"}:
                told[sample.labels.get("outcome") or f"shed: {sample.labels['reason']}"] = sample.value
    return told


async def measure(
    options: argparse.Namespace, folder: Path, model: Path, made: Sequence[Path], engine: str
) -> tuple[float, dict[str, Arm]]:
    arms = {name: Arm() for name in ARMS}
    async with stage(folder, model, made, engine, options.rank) as (store, urls, candidate):

        async def mirror(ratio: float) -> None:
            await store.set_candidate(ALIAS, candidate.name if ratio else None, mirror_ratio=ratio, now=0.0)
            await asyncio.sleep(1.0)  # longer than gateway.routing_poll_s, and than a shadow that still runs

        for name, url in urls.items():
            await mirror(0.0 if name in UNMIRRORED else MIRRORED)
            await play(url, plan(10.0, 3.0, seed=0))
        await mirror(0.0)
        able = await capacity(urls[OFF], options.seconds)
        for number in range(options.rounds):
            planned = plan(options.load * able, options.seconds, seed=number + 1)
            order = [*arms, *arms][number % len(arms) :][: len(arms)]
            for name in order:
                await mirror(0.0 if name in UNMIRRORED else MIRRORED)
                before = await shadows(urls[name])
                replies = await play(urls[name], planned)
                after = await shadows(urls[name])
                await mirror(0.0)
                arm = arms[name]
                arm.rounds.append([reply for reply in replies if not reply.fault])
                arm.failed += len(replies) - len(arm.rounds[-1])
                for key, value in after.items():
                    arm.shadows[key] = arm.shadows.get(key, 0.0) + value - before.get(key, 0.0)
    return able, arms


def mean_gap(reply: Streamed) -> float:
    return (reply.arrivals[-1] - reply.arrivals[0]) / max(1, len(reply.arrivals) - 1)


def first_p99(replies: Sequence[Streamed]) -> float:
    return float(np.quantile([reply.first_s for reply in replies], 0.99)) * 1e3


def gap_p99(replies: Sequence[Streamed]) -> float:
    return float(np.quantile(np.concatenate([np.diff(reply.arrivals) for reply in replies]), 0.99)) * 1e3


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reply must keep to, seconds."""

    first_s: float
    gap_s: float

    def kept(self, replies: Sequence[Streamed]) -> float:
        """The share of replies within the limits."""
        good = [reply.first_s <= self.first_s and mean_gap(reply) <= self.gap_s for reply in replies]
        return sum(good) / len(good)


def ratio(here: Sequence[float], base: Sequence[float]) -> tuple[float, float, float]:
    """The median over rounds of here/base, with a 95% interval by resampling rounds (the percentile bootstrap)."""
    pairs = np.array(here) / np.array(base)
    drawn = np.random.default_rng(0).choice(pairs, size=(2000, len(pairs)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    return float(np.median(pairs)), float(low), float(high)


def show(able: float, arms: Mapping[str, Arm], options: argparse.Namespace) -> bool:
    """Print the table; whether the mirror keeps to all targets."""
    off = [reply for replies in arms[OFF].rounds for reply in replies]
    limits = Limits(
        float(np.quantile([reply.first_s for reply in off], 0.95)),
        float(np.quantile([mean_gap(reply) for reply in off], 0.95)),
    )
    rows: list[tuple[str, Callable[[Sequence[Streamed]], float], str]] = [
        ("p99 to first token, ms", first_p99, "≤ 1.05x"),
        ("p99 between tokens, ms", gap_p99, "≤ 1.05x"),
        ("goodput, share of replies", limits.kept, "≥ 0.97x"),
    ]
    table = Table(
        *("arm", *(title for title, _, _ in rows), "shadows answered"),
        title=f"{options.load:.0%} of {able:.0f} requests/s, {MIRRORED:.0%} mirrored; medians of {options.rounds} "
        f"rounds of {options.seconds:g} s; ratios to no mirror in the same round, with 95% intervals",
        caption=f"goodput: begun within {limits.first_s * 1e3:.0f} ms, at most {limits.gap_s * 1e3:.0f} ms a token "
        "(each what 95% keep to without a mirror)",
    )
    middles = []
    for name, arm in arms.items():
        cells = []
        for _, figure, _ in rows:
            here, base = [figure(r) for r in arm.rounds], [figure(r) for r in arms[OFF].rounds]
            middle, low, high = ratio(here, base)
            cells.append(f"{median(here):.3g}" + (f"  {middle:.2f}x ({low:.2f} to {high:.2f})" if name != OFF else ""))
            if name == MIRROR:
                middles.append(middle)
        offered = arm.shadows.get("offered", 0.0)
        table.add_row(name, *cells, f"{arm.shadows.get('sent', 0):.0f} of {offered:.0f}" if offered else "-")
    table.add_section()
    table.add_row("target of the mirror", *(target for _, _, target in rows), "")
    console = Console(width=150)
    console.print(table)
    for name, arm in arms.items():
        told = ", ".join(f"{key} {value:.0f}" for key, value in sorted(arm.shadows.items()) if value)
        console.print(f"{name}: {sum(map(len, arm.rounds))} replies, {arm.failed} failed; shadows: {told or 'none'}")
    first, gap, goodput = middles
    return first <= 1.05 and gap <= 1.05 and goodput >= 0.97 and not any(arm.failed for arm in arms.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=12.0, help="length of a round")
    parser.add_argument("--load", type=float, default=0.85, help="of what the engine can do in a closed loop")
    parser.add_argument("--width", type=int, default=256, help="of the model")
    parser.add_argument("--rank", type=int, default=8, help="of the adapters")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "state").mkdir()
        model = save_model(folder / "base", width=options.width)
        made = [save_adapter(folder / f"made{seed}", model, seed=seed, rank=options.rank) for seed in (1, 2)]
        flags = (*ENGINE_FLAGS, f"--max-lora-rank={options.rank}")
        with vllm_server(
            model, {}, folder / "vllm.log", flags=flags, environment=RUNTIME_LORA, start_s=START_S
        ) as engine:
            able, arms = uvloop.run(measure(options, folder, model, made, engine))
    return 0 if show(able, arms, options) else 1


if __name__ == "__main__":
    sys.exit(main())
