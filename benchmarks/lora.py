"""How fast adapters are on a CPU engine, with Trimtab's plugin and without: `python -m benchmarks.lora`.

Both engines run at once and take turns, so that each ratio is between rounds seconds apart.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from random import Random
from statistics import fmean, median, quantiles
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks.tiny_model import save_adapter, save_model
from benchmarks.traffic import chat, send, texts
from benchmarks.vllm_server import vllm_server

ADAPTERS = ("one", "two", "three")
TRAFFIC = {"base model": ("base",), "1 adapter": ("one",), "3 adapters + base": ("base", *ADAPTERS)}
CONCURRENCY = 32

SHAPES = {
    "256x8": "what the demo serves",
    "256x16": "the default of `retrain.rank`",
    "1024x16": "nearer to a real model",
}
"""Width of the base model x rank of the adapters."""


def tokens_per_s(url: str, models: Sequence[str], tokens: int) -> float:
    lines = texts(2 * CONCURRENCY)
    bodies = [chat(models[n % len(models)], text, tokens=tokens) for n, text in enumerate(lines)]
    return len(bodies) * tokens / send(url, bodies, CONCURRENCY).wall_s


def lone_ms(url: str, models: Sequence[str], tokens: int) -> float:
    bodies = [chat(models[n % len(models)], text, tokens=tokens) for n, text in enumerate(texts(8))]
    return median(send(url, bodies, 1).latencies_s) * 1e3


def measure(engines: dict[str, str], rounds: int, tokens: int) -> Table:
    """Interleaved rounds, the order turning; a ratio compares the means over all rounds."""
    arms = [(engine, traffic) for engine in engines for traffic in TRAFFIC]
    speeds: dict[tuple[str, str], list[float]] = {arm: [] for arm in arms}
    waits: dict[tuple[str, str], list[float]] = {arm: [] for arm in arms}
    for number in range(rounds):
        for engine, url in engines.items():
            for models in TRAFFIC.values():  # an engine that stood by has gone cold
                tokens_per_s(url, models, tokens // 4)
            for traffic in (*TRAFFIC, *TRAFFIC)[number % len(TRAFFIC) :][: len(TRAFFIC)]:
                speeds[engine, traffic].append(tokens_per_s(url, TRAFFIC[traffic], tokens))
                if number % 3 == 0:
                    waits[engine, traffic].append(lone_ms(url, TRAFFIC[traffic], tokens))
    table = Table("engine", "requests for", "tokens/s", "of base (95% interval)", "one request, ms")
    for engine, traffic in arms:
        here, base = speeds[engine, traffic], speeds[engine, "base model"]
        low, high = interval(here, base)
        table.add_row(
            engine,
            traffic,
            f"{fmean(here):,.0f}",
            f"{fmean(here) / fmean(base):.2f}x ({low:.2f} to {high:.2f})",
            f"{median(waits[engine, traffic]):.0f}",
        )
    return table


def interval(here: Sequence[float], base: Sequence[float], resamples: int = 2000) -> tuple[float, float]:
    """Of the ratio of means, by resampling whole rounds (the percentile bootstrap; Efron, 1979)."""
    draw, rounds = Random(0), range(len(here))
    ratios = []
    for _ in range(resamples):
        chosen = [draw.choice(rounds) for _ in rounds]
        ratios.append(sum(here[n] for n in chosen) / sum(base[n] for n in chosen))
    cuts = quantiles(ratios, n=40)
    return cuts[0], cuts[-1]


def compare(width: int, rank: int, rounds: int, tokens: int) -> Table:
    """Both engines on one base model and adapters of one rank."""
    with TemporaryDirectory() as name, ExitStack() as stack, ThreadPoolExecutor() as pool:
        folder = Path(name)
        model = save_model(folder / "base", width=width)
        adapters = {
            name: save_adapter(folder / name, model, seed=seed, rank=rank) for seed, name in enumerate(ADAPTERS, 1)
        }
        stock = {"VLLM_PLUGINS": "trimtab_cpu_wait,trimtab_cpu_norm,trimtab_cpu_tiles"}
        servers = {
            "plugin": vllm_server(model, adapters, folder / "plugin.log", rank=rank),
            "stock": vllm_server(model, adapters, folder / "stock.log", environment=stock, rank=rank),
        }
        urls = pool.map(stack.enter_context, servers.values())
        return measure(dict(zip(servers, urls, strict=True)), rounds, tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=64, help="length of each reply")
    parser.add_argument(
        "--shape", action="append", metavar="WIDTHxRANK", help=f"of the model and its adapters; {', '.join(SHAPES)}"
    )
    options = parser.parse_args()
    for shape in options.shape or SHAPES:
        width, rank = map(int, shape.split("x"))
        table = compare(width, rank, options.rounds, options.tokens)
        table.title = f"adapters of rank {rank} on every layer of a model {width} wide: {SHAPES.get(shape, 'as asked')}"
        Console().print(table)


if __name__ == "__main__":
    main()
