"""Starts controllers, gateways, engines and jobs by forking a process that has imported them: the same code, in
processes of their own, in a tenth of the time.

`python -m tests.contract.kills.zygote SOCKET`; one JSON line asks for one process.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import scipy.sparse  # noqa: F401 - what jobs import as they go
import sklearn.cluster
import sklearn.feature_extraction.text  # noqa: F401
import uvloop

import service.drivers.store  # noqa: F401 - imported once for all
from service import bootstrap, controller
from service.settings import load_settings
from tests.contract.kills import engine, light_job
from tests.contract.kills.arming import follow
from tests.contract.kills.world import JOB

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_libc = ctypes.CDLL(None)


def run(asked: dict[str, Any]) -> int:
    """What `trimtab ROLE --config CONFIG`, or `python -m retrain_jobs`, runs; its exit code."""
    role, config = asked["role"], Path(asked["config"])
    if role == "engine":
        engine.serve(asked["port"])
        return 0
    follow(config.parent / f"{role}.arm")
    if role == "job":
        _libc.prctl(_PR_SET_NAME, JOB.encode())
        threading.Thread(target=_end_with, args=(asked["shim"],), daemon=True).start()
        return light_job.run(asked["arguments"])
    bootstrap.SHIP = (sys.executable, "-m", "tests.contract.kills.ship")
    sys.executable = str(config.parent / "job-python")
    settings = load_settings(config)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bootstrap.run_serve(settings) if role == "serve" else controller.run_controller(settings, config))
    return 0


def _end_with(shim: int) -> None:
    """A job dies with the process that the controller launched, as if it were that one."""
    while os.path.exists(f"/proc/{shim}"):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)


def child(asked: dict[str, Any]) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    log = os.open(Path(asked["config"]).parent / f"{asked['role']}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    for handle in (1, 2):
        os.dup2(log, handle)
    code = 1
    try:
        code = run(asked)
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen()
    while True:
        caller, _ = listener.accept()
        # A caller may be killed at any time: a job's shim dies with its controller.
        with contextlib.suppress(OSError, ValueError), caller, caller.makefile("rwb") as lines:
            asked = json.loads(lines.readline())
            pid = os.fork()
            if pid == 0:
                listener.close()
                if asked["role"] != "job":  # whose shim waits for the end of the connection
                    lines.close()
                    caller.close()
                child(asked)
            lines.write(json.dumps({"pid": pid}).encode() + b"\n")


if __name__ == "__main__":
    main()
