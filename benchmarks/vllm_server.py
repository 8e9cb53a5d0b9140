"""One real vLLM on this machine, for tests and benchmarks: started, asked, ended."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from service.engine.command import EAGER, cpu_dtype, cpu_executor
from service.engine.processor import has_fast_bfloat16

DTYPE = cpu_dtype("auto", fast_bfloat16=has_fast_bfloat16())
"""As Trimtab starts its own engine; so is its executor."""

ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "INFO",
    # A server that was held up for its 5 s on a busy machine closes connections on which requests have come.
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "600",
}
FLAGS = (f"--dtype={DTYPE}", "--max-model-len=512", "--max-num-seqs=64", "--generation-config=vllm")


@contextmanager
def vllm_server(
    model: Path,
    adapters: Mapping[str, Path],
    log: Path,
    *,
    flags: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
    start_s: float = 180,
    rank: int = 16,
    port: int = 0,
) -> Iterator[str]:
    """Yield the URL of a healthy vLLM that serves `model` as `base` and each adapter by its name; port 0: any free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was served on has connections that fade
        probe.bind(("127.0.0.1", port))
        port = probe.getsockname()[1]
    lora = ["--enable-lora", f"--max-lora-rank={rank}", f"--max-loras={len(adapters)}", "--lora-modules"]
    lora += [f"{name}={path}" for name, path in adapters.items()]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += [f"--model={model}", "--served-model-name=base", f"--port={port}"]
    how = cpu_executor(len(os.sched_getaffinity(0)))
    command += ["--host=127.0.0.1", *FLAGS, *how.argv, *flags, *(lora if adapters else [])]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **ENVIRONMENT, **how.env, **(EAGER if adapters else {}), **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_healthy(url, process, log, start_s)
        yield url
    finally:
        end(process)


def wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path, start_s: float) -> None:
    deadline = time.monotonic() + start_s
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/health").is_success:
                return
        time.sleep(0.1)
    raise RuntimeError(f"vLLM did not start within {start_s:.0f} s:\n{log.read_text()[-4000:]}")


def end(process: subprocess.Popen[bytes]) -> None:
    """End the server and its children, which share its process group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(15)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
