"""One installation as real processes: an engine, `trimtab serve`, `trimtab controller` and its jobs, clients who ask
and say what would have been right. Whatever dies is started again at once, as by `trimtab up` or Kubernetes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import yaml
from safetensors.numpy import save

from service.core.errors import TrimtabError
from service.drivers.store import SqlStore, open_store
from tests.contract.kills.engine import question, right_reply
from tests.contract.kills.light_job import TASK, Outcome
from tests.service.gateway.live import ROOT, free_port

ALIAS = "support"
JOB = "trimtab-job"
"""The name of processes that work on a job."""

RECENT = 30
"""Cycles that are looked at whenever something is judged: an earlier one has been judged often enough."""

ROLES = ("engine", "serve", "controller")
SETTINGS: dict[str, Any] = {
    "model": "made/for-tests",
    "log_level": "warning",
    "aliases": {ALIAS: {}},
    "engine": {"max_loras": 1000},
    "controller": {"interval_s": 0.1, "lease_s": 0.3, "quality_window": 10},
    "gateway": {"routing_poll_s": 0.1, "probe_s": 0.2},
    "capture": {"fsync_interval_s": 0.02, "ship_interval_s": 0.05},
    "mirror": {"ratio": 1.0, "max_live_ratio": 1.0},
    "retrain": {
        "every_labels": 10, "min_new_examples": 8, "min_examples": 4, "max_examples": 40, "heartbeat_s": 0.1,
        "stale_after_s": 1.0, "max_attempts": 1000, "max_cycles_per_day": 1_000_000, "threads": 1, "nice": 0, "rank": 8,
    },
    "promotion": {
        "cooldown_s": 0.05, "min_pairs": 8, "max_pairs": 40, "watch_s": 1.0, "watch_min_labelled": 14,
        "max_failures": 2,
    },
}  # fmt: skip
"""The defaults' proportions at a hundredth of their times."""


@dataclass(slots=True)
class Role:
    """What runs under a name; `starts` counts."""

    name: str
    pid: int = 0
    starts: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class World:
    def __init__(self, folder: Path, store_url: str) -> None:
        self.state = folder / "state"
        self.state.mkdir()
        self.socket = folder / "zygote"
        self.store_url = store_url
        self.config = self.state / "trimtab.yaml"
        self.roles = {name: Role(name) for name in ROLES}
        self.ports = {name: free_port() for name in ("engine", "serve")}
        self.url = f"http://127.0.0.1:{self.ports['serve']}"
        self.engine_url = f"http://127.0.0.1:{self.ports['engine']}"
        self.topic = 0
        self.outcome = Outcome.GOOD
        self.asked = self.answered = 0
        self.ended: set[str] = set()
        self.digests: dict[str, str] = {}
        self.store: SqlStore
        self.http = httpx.AsyncClient(trust_env=False, timeout=3.0)
        self.zygote = 0
        self._tasks: list[asyncio.Task[None]] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[World]:
        """Everything runs within the block and nothing after it."""
        self._write_files()
        self.will(Outcome.GOOD)
        self.store = await open_store(self.store_url)
        zygote = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.contract.kills.zygote", str(self.socket), cwd=ROOT,
            env={**{k: v for k, v in os.environ.items() if not k.startswith("TRIMTAB_")}, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.zygote = zygote.pid
        try:
            while not self.socket.exists():
                assert zygote.returncode is None
                await asyncio.sleep(0.02)
            self._tasks = [asyncio.create_task(self._keep(role)) for role in self.roles.values()]
            self._tasks += [asyncio.create_task(self._use()), asyncio.create_task(self._lead_on())]
            yield self
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            zygote.kill()  # and with it all that it started
            await zygote.wait()
            await self.http.aclose()
            await self.store.close()

    def arm(self, role: str, text: str) -> None:
        """Arm the failpoint in the running process of this role; nothing disarms."""
        if text:
            self._write(f"{role}.arm", text)
        else:
            (self.state / f"{role}.arm").unlink(missing_ok=True)

    def kill(self, role: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.roles[role].pid, signal.SIGKILL)

    async def digest(self, adapter: str) -> str:
        """The registered one, which never changes; raises NotFound."""
        if adapter not in self.digests:
            self.digests[adapter] = (await self.store.adapter(adapter)).digest
        return self.digests[adapter]

    def will(self, outcome: Outcome) -> None:
        """How the cycles from now on shall end."""
        self.outcome = outcome
        self._write(TASK, json.dumps({"topic": self.topic, "outcome": outcome}))

    def _write(self, name: str, text: str) -> None:
        draft = self.state / f"{name}.new"
        draft.write_text(text, "utf-8")
        draft.rename(self.state / name)

    async def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """The control API, as a person uses it."""
        return await self.http.request(method, f"{self.url}/api/v1{path}", json=body)

    def orphans(self) -> list[str]:
        """Processes that work on jobs and do not belong to the controller that runs."""
        running = processes()
        shims = {pid: parent for pid, parent, line in running if str(self.state / "job-python") in line}
        jobs = [pid for pid, parent, line in running if parent == self.zygote and line.startswith(JOB)]
        controller = self.roles["controller"].pid
        found = [f"the process {pid} is the child of {parent}" for pid, parent in shims.items() if parent != controller]
        return found if len(jobs) <= len(shims) else [*found, f"of the jobs {jobs} some belong to nobody"]

    def _write_files(self) -> None:
        path = "base_model.model.model.layers.0.self_attn.q_proj"
        pair = {"A": np.ones((8, 32), np.float32), "B": np.zeros((32, 8), np.float32)}
        (self.state / "weights").write_bytes(save({f"{path}.lora_{side}.weight": one for side, one in pair.items()}))
        python = self.state / "job-python"
        shim = (Path(__file__).parent / "shim.py").read_text("utf-8")
        python.write_text(f"#!{sys.executable} -IS\n{shim.replace('SOCKET', repr(str(self.socket)))}", "utf-8")
        python.chmod(0o755)
        own = {
            "engines": [self.engine_url],
            "state_dir": str(self.state),
            "store": {"url": self.store_url},
            "server": {"port": self.ports["serve"], "controller_metrics_port": 0, "drain_s": 0.2},
        }
        self.config.write_text(yaml.safe_dump(SETTINGS | own), "utf-8")

    async def _keep(self, role: Role) -> None:
        """Start it, again and again."""
        while True:
            role.pid = await self._spawn(role.name)
            role.starts += 1
            await _ended(role.pid)
            role.gone.set()
            await asyncio.sleep(0.02)

    async def _spawn(self, role: str) -> int:
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        asked = {"role": role, "config": str(self.config), "port": self.ports.get(role, 0)}
        writer.write(json.dumps(asked).encode() + b"\n")
        told = json.loads(await reader.readline())
        writer.close()
        await writer.wait_closed()
        return int(told["pid"])

    async def _use(self) -> None:
        """Clients: three at a time ask, and tell what was expected; some of it meets a gateway that is dying."""
        number = 0
        while True:
            number += 3
            await asyncio.gather(*(self._ask(number + i) for i in range(3)))
            await asyncio.sleep(0.15)

    async def _ask(self, number: int) -> None:
        """Every other time about the topic before, which the champion should know."""
        self.asked += 1
        text = question(number, self.topic - (number // 3) % 2)
        body = {"model": ALIAS, "messages": [{"role": "user", "content": text}]}
        try:
            reply = await self.http.post(f"{self.url}/v1/chat/completions", json=body)
            if reply.status_code == 200:
                self.answered += 1
                told = {"request_id": reply.headers["x-request-id"], "expected": right_reply(text)}
                await self.http.post(f"{self.url}/v1/feedback", json=told)
        except httpx.HTTPError:
            await asyncio.sleep(0.05)

    async def _lead_on(self) -> None:
        """A new topic whenever a cycle has ended; a person who unlatches."""
        while True:
            with contextlib.suppress(TrimtabError, httpx.HTTPError):
                self.ended |= {cycle.id for cycle in await self.store.cycles(ALIAS, limit=RECENT) if not cycle.is_open}
                if len(self.ended) != self.topic:
                    self.topic = len(self.ended)
                    self.will(self.outcome)
                if (await self.store.alias(ALIAS)).latched:
                    await self.call("POST", f"/aliases/{ALIAS}/unlatch", {})
            await asyncio.sleep(0.1)


def processes() -> list[tuple[int, int, str]]:
    """Id, parent, and name with command line of every process that runs."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            before, _, after = (entry / "stat").read_text().rpartition(")")
            fields = after.split()
            if fields[0] not in "ZX":
                name = before.partition("(")[2]
                line = f"{name} " + (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                found.append((int(entry.name), int(fields[1]), line))
    return found


async def _ended(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(handle, lambda: ended.done() or ended.set_result(None))
        await ended
    finally:
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)
