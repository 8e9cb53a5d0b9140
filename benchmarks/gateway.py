"""What the gateway adds to a request, over the stub engine, with capture, keys and metrics on.

    python -m benchmarks.gateway [--seconds 5] [--rounds 3]

The gateway runs alone on the last core; the stub and the load generator share the others. Rounds alternate between
direct and through the gateway, so that both see the same machine; medians over rounds are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from statistics import median

import uvloop

from benchmarks.load import Load, run_load

ENGINE_PORT, GATEWAY_PORT = 18001, 18080
KEY = "benchmark"
TOKENS = 16
CHAT = {
    "model": "support",
    "messages": [
        {"role": "system", "content": "You answer customers of a shop in one short sentence."},
        {"role": "user", "content": "Where is my order 12345? It should have been here on Monday."},
    ],
    "temperature": 0,
    "max_tokens": 64,
}


async def serve_gateway(state_dir: Path, confidence: bool) -> None:
    """A gateway as `trimtab serve` runs it, over a SQLite store, with one alias on the stub engine."""
    import uvicorn
    from prometheus_client import CollectorRegistry

    from service.core.records import EngineView, Key, Scope
    from service.drivers.clock import SystemClock
    from service.drivers.store import open_store
    from service.gateway.app import create_app
    from service.gateway.gateway import Gateway
    from service.settings import CaptureSettings, ServerSettings, Settings
    from service.telemetry import GatewayMetrics

    settings = Settings(
        state_dir=state_dir,
        server=ServerSettings(port=GATEWAY_PORT, require_keys=True),
        capture=CaptureSettings(confidence=confidence),
    )
    store = await open_store(settings.store_url, migrate=True)
    await store.add_alias("support", now=0.0)
    await store.add_key(Key("k", "k", sha256(KEY.encode()).hexdigest(), frozenset(Scope), 0.0))
    await store.report_engines([EngineView(f"http://127.0.0.1:{ENGINE_PORT}", True, frozenset(), 0.0, "base")])
    registry = CollectorRegistry()
    gateway = Gateway(
        settings,
        load_routing=store.routing,
        load_keys=store.keys,
        sink=store,
        secret=await store.secret("request-ids"),
        metrics=GatewayMetrics(registry),
        registry=registry,
        clock=SystemClock(),
    )
    config = uvicorn.Config(
        create_app(gateway), port=GATEWAY_PORT, loop="none", http="httptools", log_level="warning", access_log=False
    )
    await uvicorn.Server(config).serve()
    await store.close()


@contextmanager
def child(argv: Sequence[str], cores: set[int]) -> Iterator[int]:
    """A child process on some cores; yields its process id, ends it with SIGTERM."""
    process = subprocess.Popen([sys.executable, "-m", *argv], stdout=subprocess.DEVNULL)
    os.sched_setaffinity(process.pid, cores)
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


async def until_answered(port: int, url: str, key: str | None) -> None:
    for _ in range(300):
        try:
            if (await run_load(url, CHAT, connections=1, seconds=0.0, key=key)).failed == 0:
                return
        except OSError:
            pass
        await asyncio.sleep(0.1)
    raise SystemExit(f"Nothing answers on port {port}.")


def cpu_s(pid: int) -> float:
    """CPU time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


async def measure(pid: int, seconds: float, rounds: int) -> None:
    direct = f"http://127.0.0.1:{ENGINE_PORT}/v1/chat/completions"
    through = f"http://127.0.0.1:{GATEWAY_PORT}/v1/chat/completions"
    await until_answered(ENGINE_PORT, direct, None)
    await until_answered(GATEWAY_PORT, through, KEY)
    await run_load(through, CHAT, connections=32, seconds=1.0, key=KEY)
    for name, body in (("unary", CHAT), ("streamed", {**CHAT, "stream": True})):
        ones: list[tuple[Load, Load]] = []
        manys: list[tuple[Load, Load]] = []
        costs = []
        for _ in range(rounds):
            ones.append(
                (
                    await run_load(direct, body, connections=1, seconds=seconds),
                    await run_load(through, body, connections=1, seconds=seconds, key=KEY),
                )
            )
            before = await run_load(direct, body, connections=32, seconds=seconds)
            used = cpu_s(pid)
            after = await run_load(through, body, connections=32, seconds=seconds, key=KEY)
            costs.append((cpu_s(pid) - used) / len(after.latencies))
            manys.append((before, after))
        failed = sum(load.failed for pair in (*ones, *manys) for load in pair)
        print(f"{name}, {TOKENS} tokens, medians of {rounds} rounds of {seconds:g} s; failed requests: {failed}")
        for q in (0.5, 0.99):
            base = median(d.quantile(q) for d, _ in ones) * 1e3
            ours = median(t.quantile(q) for _, t in ones) * 1e3
            print(
                f"  1 connection   p{q * 100:<3g} direct {base:7.3f} ms   through {ours:7.3f} ms"
                f"   added {ours - base:7.3f} ms"
            )
        base = median(d.rate for d, _ in manys)
        ours = median(t.rate for _, t in manys)
        print(
            f"  32 connections      direct {base:7.0f} /s   through {ours:7.0f} /s"
            f"   CPU {median(costs) * 1e6:.0f} µs a request"
        )
    print(f"gateway's resident memory: {resident_mib(pid):.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-confidence", action="store_true", help="do not ask the engine for log-probabilities")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        uvloop.run(serve_gateway(args.serve, not args.no_confidence))
        return
    cores = sorted(os.sched_getaffinity(0))
    ours, others = ({cores[-1]}, set(cores[:-1])) if len(cores) > 1 else (set(cores), set(cores))
    flags = ["--no-confidence"] if args.no_confidence else []
    os.sched_setaffinity(0, others)
    with (
        tempfile.TemporaryDirectory() as folder,
        child(["benchmarks.stub_engine", "--port", str(ENGINE_PORT), "--tokens", str(TOKENS)], others),
        child(["benchmarks.gateway", "--serve", folder, *flags], ours) as pid,
    ):
        uvloop.run(measure(pid, args.seconds, args.rounds))


if __name__ == "__main__":
    main()
