"""The vLLM plugin that lets a CPU engine's processes take turns.

Engine core and worker poll for each other's messages with `os.sched_yield` as long as requests come. On the cores that
compute, this takes half of the machine: measured on two cores at 20 requests/s, the core's poll alone took 0.5 of one.
And it lets go of Python's global interpreter lock for a microsecond only, so that the thread that admits requests
loses every race: requests that came together were served one after the other. So the poll sleeps.

Loaded by the `vllm.general_plugins` entry point `trimtab_cpu_wait` in every engine process.
"""

import ctypes
import logging
import sys
import threading
import time

SLEEP_S = 1e-4
"""A thirtieth of a small model's step, at which the poll costs a tenth of a core."""

_PR_SET_TIMERSLACK = 29
_SLACK_NS = 1_000

log = logging.getLogger(__name__)
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Wait:
    """Called in a loop until what is waited for is there."""

    def __init__(self) -> None:
        self._thread = threading.local()

    def __call__(self) -> None:
        if not hasattr(self._thread, "is_prompt"):
            self._thread.is_prompt = True
            if _libc is not None:  # a thread's sleeps are 50 µs late by default
                _libc.prctl(_PR_SET_TIMERSLACK, _SLACK_NS, 0, 0, 0)
        time.sleep(SLEEP_S)


def register() -> None:
    """Put a `Wait` in the place of the yield, on the CPU platform only."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.distributed.device_communicators import shm_broadcast

    if not hasattr(shm_broadcast, "sched_yield"):
        log.warning("This vLLM waits in another way than the one known here; requests may be served one by one.")
        return
    shm_broadcast.sched_yield = Wait()
