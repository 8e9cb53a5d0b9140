"""The vLLM plugin that has a CPU engine normalise with vLLM's own compiled kernels.

vLLM builds them for CPUs, but its models call them on GPUs only: on a CPU without its compiler, which LoRA switches
off, a normalisation (Zhang and Sennrich, 2019) is half a dozen small operations. A small model's step has some twenty
of them at 60 µs each, where the kernel takes 5 (decision 0011).

Loaded by the `vllm.general_plugins` entry point `trimtab_cpu_norm` in every engine process.
"""

import logging
from typing import Any

log = logging.getLogger(__name__)

NEEDED = ("rms_norm", "fused_add_rms_norm")


def register() -> None:
    """Have vLLM make its RMSNorm layers of the class below, on the CPU platform only."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    current_platform.import_kernels()

    import torch
    from vllm.model_executor.custom_op import op_registry_oot
    from vllm.model_executor.layers.layernorm import RMSNorm

    if RMSNorm.__name__ in op_registry_oot:
        return

    kernels = torch.ops._C
    if not all(hasattr(kernels, name) for name in NEEDED):
        log.warning("This vLLM has no compiled normalisation for CPUs; it goes its own, slower way.")
        return

    class CompiledRMSNorm(RMSNorm):  # type: ignore[misc]
        """The same function; what the kernels do not know goes vLLM's own way."""

        def forward_cpu(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
            known = self.has_weight and self.variance_size_override is None and self.weight.dtype == x.dtype
            if known and residual is None:
                out = torch.empty(x.shape, dtype=x.dtype)
                kernels.rms_norm(out, x.contiguous(), self.weight, self.variance_epsilon)
                return out
            if known and residual is not None and x.is_contiguous() and residual.is_contiguous():
                kernels.fused_add_rms_norm(x, residual, self.weight, self.variance_epsilon)
                return x, residual
            return self.forward_native(x, residual)

    RMSNorm.register_oot(CompiledRMSNorm, name=RMSNorm.__name__)
