"""Child processes: started, watched, restarted with backoff, stopped cleanly. None outlives its parent."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.core.errors import ConfigError, Conflict

CONFIG_EXIT = 2
"""The exit code of a child whose configuration cannot be used: restarting it would not help."""

PREFIX = "trimtab: "
"""Of every line that is meant for the person at the terminal."""

LOWEST = 19
"""The niceness below all others."""

GETTING_READY = 5
"""The most that a job gives way until it trains: importing and reading are seconds of a processor, once a cycle, and a
minute where only what nobody else wants is left for it."""

_BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_HEALTHY_S = 60.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to start a child; its output goes to `log`."""

    name: str
    argv: Sequence[str]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    nice: int = 0
    stop_timeout_s: float = 15.0


class Child:
    """One running child, the leader of a process group of its own."""

    def __init__(self, spec: ChildSpec, process: asyncio.subprocess.Process) -> None:
        self.spec = spec
        self._process = process

    @classmethod
    async def start(cls, spec: ChildSpec) -> Child:
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        parent = os.getpid()

        def prepare() -> None:
            os.setpgrp()
            die_with(parent)
            if spec.nice:
                lower_priority(spec.nice)

        with spec.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *spec.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **spec.env},
                preexec_fn=prepare,
            )
        return cls(spec, process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    async def wait(self) -> int:
        return await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM to the child, SIGKILL to its whole group after `stop_timeout_s` or once it has gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), self.spec.stop_timeout_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()


def die_with(parent: int) -> None:
    """In a child before it becomes another program: be terminated when `parent` dies (where the system can do that)."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)


def lower_priority(nice: int) -> None:
    """Give way to other processes, with all threads; at 19, the lowest, run only when no other wants to.

    Linux weighs a session's processes against each other, and sessions before them (sched_autogroup): so children stay
    in their parent's session.
    """
    threads = map(int, os.listdir("/proc/self/task")) if sys.platform == "linux" else (0,)
    for thread in threads:
        with contextlib.suppress(OSError):  # it has ended
            os.setpriority(os.PRIO_PROCESS, thread, max(nice, os.getpriority(os.PRIO_PROCESS, thread)))
            if nice == LOWEST and hasattr(os, "SCHED_IDLE"):
                # By niceness alone, what wakes up may wait for milliseconds until the other's turn is over.
                os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))


async def keep_running(spec: ChildSpec, stop: asyncio.Event) -> None:
    """Run the child until `stop`, starting it again with backoff whenever it dies.

    Raises:
        ConfigError: the child said (exit code 2) that it cannot use its configuration; its log's last line says why.
    """
    failures = 0
    while not stop.is_set():
        started = asyncio.get_running_loop().time()
        child = await Child.start(spec)
        try:
            code = await first(child.wait(), stop.wait())
        finally:
            await child.stop()
        if stop.is_set():
            return
        if code == CONFIG_EXIT:
            raise ConfigError(f"{spec.name} could not start: {last_line(spec.log).removeprefix(PREFIX)}")
        lived_s = asyncio.get_running_loop().time() - started
        failures = 0 if lived_s >= _HEALTHY_S else failures + 1
        pause_s = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
        note(f"{spec.name} ended with code {code}; starting it again in {pause_s:g} s. Its log: {spec.log}")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause_s)


async def first(*coroutines: Coroutine[Any, Any, Any]) -> Any:
    """The result of whichever ends first; the others are cancelled."""
    tasks = [asyncio.create_task(c) for c in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(iter(done)).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def stop_on_signals() -> asyncio.Event:
    """An event that SIGINT and SIGTERM set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


def check_port_free(host: str, port: int, setting: str) -> None:
    """Raise Conflict, naming the setting to change, when something listens on the port already."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Conflict(
                f"Port {port} on {host} cannot be used ({error.strerror}); free it or set {setting} to another.",
                param=setting,
                code="port_in_use",
            ) from error


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    try:
        lines = log.read_text("utf-8", "replace").splitlines()
    except OSError:
        return f"it left no log at {log}"
    return next((line.strip() for line in reversed(lines) if line.strip()), f"its log at {log} is empty")


def note(text: str) -> None:
    """A line for the person at the terminal."""
    sys.stderr.write(f"{PREFIX}{text}\n")
    sys.stderr.flush()
