"""The vLLM plugin that lets the threads of a CPU engine take turns.

While a step runs, vLLM's engine core polls for its result with `os.sched_yield`, which lets go of Python's global
interpreter lock and takes it again within a microsecond. The thread that admits requests needs longer than that to
wake, so it loses every race until the engine has nothing to do: requests that came together are then served one after
the other. A short sleep now and then lets it in; in between the poll stays as quick as it was.

Loaded by the `vllm.general_plugins` entry point `trimtab_cpu_wait` in every engine process.
"""

import logging
import os
import time

SPIN_S = 2e-4
"""Between two sleeps: a tenth of a small model's step."""

SLEEP_S = 1e-5
"""Linux rounds it up by its timer slack to about 60 µs."""

log = logging.getLogger(__name__)


class Wait:
    """Called in a loop until what is waited for is there."""

    def __init__(self) -> None:
        self._sleep_at = 0.0

    def __call__(self) -> None:
        if time.monotonic() < self._sleep_at:
            os.sched_yield()
        else:
            time.sleep(SLEEP_S)
            self._sleep_at = time.monotonic() + SPIN_S


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
