"""TensorZero's gateway as its Python package has it, without observability: embedded in a program, and over HTTP.

Embedded, a Python loop calls it in its own process: it is spared the HTTP server that the others have. The package can
also put its HTTP server into that process (`_start_http_gateway`, what `patch_openai_client` uses), which stands in
for TensorZero's standalone gateway: the same code in Rust, behind OpenAI's API.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gateway.arms import CHAT, MODEL, START_S, Arm, DidNotStart, HttpArm
from benchmarks.gateway.peers.install import environment
from benchmarks.gateway.process import Cores, Process, free_port, program
from benchmarks.load import Load

EMBEDDED, OVER_HTTP = "TensorZero embedded", "TensorZero HTTP"

_CONFIG = """
[gateway]
disable_pseudonymous_usage_analytics = true
[gateway.observability]
enabled = false
[models.{model}]
routing = ["stub"]
[models.{model}.providers.stub]
type = "openai"
model_name = "{model}"
api_base = "{engine}/v1/"
api_key_location = "none"
"""

_LIMIT = 64 * 2**20
"""Of a line of latencies: millions of them."""


@dataclass(frozen=True, slots=True)
class EmbeddedArm:
    """The gateway inside the driver's process, called by the driver's own loop."""

    process: Process
    port: int
    name: str = EMBEDDED

    async def load(self, connections: int, seconds: float) -> Load:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=_LIMIT)
        try:
            asked = {"connections": connections, "seconds": seconds, "request": _request()}
            writer.write(json.dumps(asked).encode() + b"\n")
            told = json.loads(await reader.readline())
        finally:
            writer.close()
        return Load(tuple(told["latencies"]), told["elapsed_s"], told["failed"])


@asynccontextmanager
async def tensorzero(folder: Path, engine: str, cores: Cores) -> AsyncIterator[list[Arm]]:
    port = free_port()
    config = folder / "tensorzero.toml"
    config.write_text(_CONFIG.format(model=MODEL, engine=engine))
    host = Path(__file__).with_name("tensorzero_host.py")
    argv = [
        str(environment("tensorzero")),
        "-P",
        str(host),
        str(config),
        str(port),
    ]  # -P: this folder has a tensorzero.py
    log = folder / "tensorzero.log"
    with program(argv, cores.tested, log, environment={"RUST_LOG": "error"}) as process:
        url = await _url(process)
        over_http = HttpArm(OVER_HTTP, url, process, model=f"tensorzero::model_name::{MODEL}")
        await over_http.until_answered()
        yield [EmbeddedArm(process, port), over_http]


async def _url(process: Process) -> str:
    """Where the HTTP server listens, as the host prints it."""
    for _ in range(round(START_S / 0.1)):
        for line in process.log.read_text().splitlines():
            if line.startswith("url "):
                return line.removeprefix("url ").rstrip("/")
        if not process.alive:
            break
        await asyncio.sleep(0.1)
    raise DidNotStart(f"TensorZero does not answer: {process.last_words()}")


def _request() -> dict[str, Any]:
    system, user = CHAT["messages"]
    return {
        "model_name": MODEL,
        "input": {"system": system["content"], "messages": [user]},
        "params": {"chat_completion": {"temperature": CHAT["temperature"], "max_tokens": CHAT["max_tokens"]}},
    }
