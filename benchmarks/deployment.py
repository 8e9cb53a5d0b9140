"""Trimtab's own processes over a running engine, as `trimtab serve` and `trimtab controller` start them."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import yaml

from service.processes import Child, ChildSpec

READY_S = 60.0


@asynccontextmanager
async def trimtab(folder: Path, roles: Sequence[str], settings: Mapping[str, Any]) -> AsyncIterator[str]:
    """Run `roles` (`serve`, `controller`) with their state in `folder`; yield the gateway's URL once it is ready.

    Raises:
        RuntimeError: a process ended or was not ready in time; its log's end says why.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = {"port": port, "controller_metrics_port": 0, **settings.get("server", {})}
    config = await asyncio.to_thread(_write, folder, {"state_dir": str(folder / "state"), **settings, "server": server})
    url = f"http://127.0.0.1:{port}"
    async with AsyncExitStack() as stack:
        children = []
        for role in roles:
            argv = [sys.executable, "-m", "service", role, "--config", str(config)]
            child = await Child.start(ChildSpec(role, argv, folder / f"{role}.log"))
            stack.push_async_callback(child.stop)
            children.append(child)
        await _until_ready(url, children)
        yield url


async def _until_ready(url: str, children: Sequence[Child]) -> None:
    deadline = monotonic() + READY_S
    async with httpx.AsyncClient(trust_env=False, timeout=2.0) as http:
        while monotonic() < deadline:
            for child in children:
                if child.returncode is not None:
                    raise RuntimeError(f"{child.spec.name} ended:\n{child.spec.log.read_text()[-2000:]}")
            try:
                if (await http.get(f"{url}/ready")).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
    raise RuntimeError(f"{url} was not ready within {READY_S:.0f} s; its logs are beside {children[0].spec.log}.")


def _write(folder: Path, settings: Mapping[str, Any]) -> Path:
    folder.mkdir()
    config = folder / "trimtab.yaml"
    config.write_text(yaml.safe_dump(settings), "utf-8")
    return config
