"""The vLLM plugin that makes LoRA on CPU engines right and fast, or refuses to start.

vLLM's own CPU path gathers each token's weights anew, and lets slot -1 (no adapter) index the last
slot: base-model requests batched with adapter requests get wrong replies. Loaded by the
`vllm.general_plugins` entry point `trimtab_cpu_lora` in every engine process. Nothing here imports
vLLM at module level: vLLM logs and skips a plugin that fails to import, but not one that raises.
"""

import hashlib
import logging
from pathlib import Path

STOCK = "vllm.lora.punica_wrapper.punica_cpu.PunicaWrapperCPU"
DENSE = "service.engine.dense_lora.DensePunicaWrapper"
KNOWN = {"831731ba6ed8": "0.32.0"}

log = logging.getLogger(__name__)


class UnknownLoraPath(RuntimeError):
    """This vLLM's CPU LoRA path is not one that the plugin was written for."""


def register() -> None:
    """Put the dense wrapper in the CPU platform's place for one; other platforms stay as they are."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    platform = type(current_platform)
    stock = current_platform.get_punica_wrapper()
    if stock == DENSE:
        return

    def get_punica_wrapper(cls: type) -> str:
        refuse_unknown(stock)
        return DENSE

    # Chosen when LoRA is switched on, so an engine without LoRA starts on any vLLM.
    platform.get_punica_wrapper = classmethod(get_punica_wrapper)


def refuse_unknown(stock: str) -> None:
    """Raise unless the class to replace, `stock`, is one that the plugin was tested against."""
    found = fingerprint() if stock == STOCK else stock
    if found not in KNOWN:
        message = (
            f"Trimtab's CPU LoRA plugin does not know this vLLM's LoRA path ({found}; known:"
            f" {', '.join(f'{print_} of vLLM {version}' for print_, version in KNOWN.items())})."
            " Its own path gave base-model requests wrong replies, so the engine does not start."
            " Install a known version; or, once tests/acceptance/test_cpu_lora.py passes without"
            " the plugin, set VLLM_PLUGINS to a list that leaves trimtab_cpu_lora out."
        )
        log.error(message)
        raise UnknownLoraPath(message)


def fingerprint() -> str:
    """12 hex of the SHA-256 of the source of what the dense wrapper inherits, and of the layers that call it."""
    import vllm

    digest = hashlib.sha256()
    for package in ("layers", "punica_wrapper"):
        for source in sorted(Path(vllm.__path__[0], "lora", package).glob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:12]
