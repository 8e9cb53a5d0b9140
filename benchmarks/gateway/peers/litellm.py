"""The LiteLLM proxy, one worker, with nothing on that costs time: no database, keys, callbacks or logs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import yaml

from benchmarks.gateway.arms import MODEL, HttpArm
from benchmarks.gateway.peers.install import environment
from benchmarks.gateway.process import Cores, free_port, program

_ENVIRONMENT = {
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_TELEMETRY": "False",
    "NO_PROXY": "127.0.0.1",
}


@asynccontextmanager
async def litellm(folder: Path, engine: str, cores: Cores) -> AsyncIterator[list[HttpArm]]:
    port = free_port()
    python = environment("litellm")
    target = {"model": f"openai/{MODEL}", "api_base": f"{engine}/v1", "api_key": "none"}
    config = folder / "litellm.yaml"
    config.write_text(yaml.safe_dump({"model_list": [{"model_name": MODEL, "litellm_params": target}]}))
    argv = [str(python.with_name("litellm")), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--num_workers", "1"]
    with program(argv, cores.tested, folder / "litellm.log", environment=_ENVIRONMENT) as process:
        arm = HttpArm("LiteLLM proxy", f"http://127.0.0.1:{port}/v1", process)
        await arm.until_answered()
        yield [arm]
