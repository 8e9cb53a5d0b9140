"""How fast adapters are on a CPU engine, with Trimtab's plugin and without: `python -m benchmarks.lora`.

Both engines run at once and take turns, so that each ratio is between rounds seconds apart.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks.tiny_model import save_adapter, save_model
from benchmarks.traffic import chat, send, texts
from benchmarks.vllm_server import vllm_server

ADAPTERS = ("one", "two", "three")
TRAFFIC = {"base model": ("base",), "1 adapter": ("one",), "3 adapters + base": ("base", *ADAPTERS)}
CONCURRENCY = 32


def tokens_per_s(url: str, models: Sequence[str], tokens: int) -> float:
    lines = texts(2 * CONCURRENCY)
    bodies = [chat(models[n % len(models)], text, tokens=tokens) for n, text in enumerate(lines)]
    return len(bodies) * tokens / send(url, bodies, CONCURRENCY).wall_s


def lone_ms(url: str, models: Sequence[str], tokens: int) -> float:
    bodies = [chat(models[n % len(models)], text, tokens=tokens) for n, text in enumerate(texts(8))]
    return median(send(url, bodies, 1).latencies_s) * 1e3


def measure(engines: dict[str, str], rounds: int, tokens: int) -> Table:
    """Medians over interleaved rounds; a ratio is the median of each round's own."""
    arms = [(engine, traffic) for engine in engines for traffic in TRAFFIC]
    speeds: dict[tuple[str, str], list[float]] = {arm: [] for arm in arms}
    waits: dict[tuple[str, str], list[float]] = {arm: [] for arm in arms}
    for number in range(rounds + 1):
        for engine, traffic in arms if number % 2 else reversed(arms):
            speed = tokens_per_s(engines[engine], TRAFFIC[traffic], tokens)
            wait = lone_ms(engines[engine], TRAFFIC[traffic], tokens)
            if number:  # the first round warms up
                speeds[engine, traffic].append(speed)
                waits[engine, traffic].append(wait)
    table = Table("engine", "requests for", "tokens/s", "of base", "best rounds", "one request, ms")
    for engine, traffic in arms:
        here, base = speeds[engine, traffic], speeds[engine, "base model"]
        ratio = median(one / other for one, other in zip(here, base, strict=True))
        table.add_row(
            engine,
            traffic,
            f"{median(here):,.0f}",
            f"{ratio:.2f}x",
            f"{max(here) / max(base):.2f}x",
            f"{median(waits[engine, traffic]):.0f}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=32, help="length of each reply")
    options = parser.parse_args()
    with TemporaryDirectory() as name, ExitStack() as stack, ThreadPoolExecutor() as pool:
        folder = Path(name)
        model = save_model(folder / "base")
        adapters = {name: save_adapter(folder / name, model, seed=seed) for seed, name in enumerate(ADAPTERS, 1)}
        servers = {
            "plugin": vllm_server(model, adapters, folder / "plugin.log"),
            "stock": vllm_server(
                model, adapters, folder / "stock.log", environment={"VLLM_PLUGINS": "trimtab_cpu_wait"}
            ),
        }
        urls = pool.map(stack.enter_context, servers.values())
        Console().print(measure(dict(zip(servers, urls, strict=True)), options.rounds, options.tokens))


if __name__ == "__main__":
    main()
