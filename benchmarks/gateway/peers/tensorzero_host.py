"""Runs in TensorZero's own environment and imports nothing of ours: its gateway, embedded and over HTTP, on a leash.

    python tensorzero_host.py CONFIG PORT

Prints the URL of the HTTP server that the package starts inside this process, then answers on PORT: a line
`{"connections": n, "seconds": s, "request": …}` gets a line with the latencies of a closed loop of n tasks that call
the embedded gateway. This loop is the only work beside the gateway's own: no HTTP server stands before it.
"""

import asyncio
import json
import sys
from time import perf_counter
from typing import Any

import uvloop
from tensorzero import (  # type: ignore[import-not-found]
    AsyncTensorZeroGateway,
    TensorZeroError,
    _start_http_gateway,
)


async def call_in_a_loop(gateway: Any, connections: int, seconds: float, request: dict[str, Any]) -> dict[str, Any]:
    latencies = []
    failed = 0
    started = perf_counter()

    async def one_task() -> None:
        nonlocal failed
        while True:
            sent_at = perf_counter()
            try:
                await gateway.inference(**request)
            except TensorZeroError:
                failed += 1
            now = perf_counter()
            latencies.append(now - sent_at)
            if now >= started + seconds:
                return

    await asyncio.gather(*(one_task() for _ in range(connections)))
    return {"latencies": sorted(latencies), "elapsed_s": perf_counter() - started, "failed": failed}


async def main(config: str, port: int) -> None:
    gateway = await AsyncTensorZeroGateway.build_embedded(config_file=config)
    stores = {"clickhouse_url": None, "postgres_url": None, "valkey_url": None}
    server = await _start_http_gateway(config_file=config, async_setup=True, **stores)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            asked = json.loads(line)
            told = await call_in_a_loop(gateway, asked["connections"], asked["seconds"], asked["request"])
            writer.write(json.dumps(told).encode() + b"\n")
        writer.close()

    leash = await asyncio.start_server(serve, "127.0.0.1", port)
    print(f"url {server.base_url}", flush=True)
    await leash.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
