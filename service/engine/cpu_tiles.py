"""The vLLM plugin that asks Linux for the matrix unit of newer processors (AMX) before vLLM uses it.

Linux ends a process that touches AMX's tiles unasked ("Illegal instruction"; kernel documentation, x86/xstate.rst).
vLLM's attention does, and asks for nothing: it counts on oneDNN, which asks when it first multiplies enough rows. An
engine whose first request was two tokens long died of it.

Loaded by the `vllm.general_plugins` entry point `trimtab_cpu_tiles` in every engine process.
"""

import logging

log = logging.getLogger(__name__)


def register() -> None:
    """Ask for this process and the threads to come, on the CPU platform only."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return

    import torch

    if torch.cpu._is_amx_tile_supported() and not torch.cpu._init_amx():
        log.warning("Linux does not let this engine use the processor's AMX, which vLLM's attention may do unasked.")
