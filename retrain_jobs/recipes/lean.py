"""PEFT's LoRA layers with the same arithmetic in fewer steps: their own add, scale and cast a whole activation each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch.nn.functional import linear

from retrain_jobs.recipes.norms import short_norms


class _LoraLinear(torch.autograd.Function):
    """y = x W' + bias + scale (x A') B'; the base's weight is frozen. x is ... x in, A rank x in, B out x rank."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:  # fmt: skip
        flat = x.reshape(-1, x.shape[-1])
        low = flat @ a.t()
        out = linear(flat, weight, bias).addmm_(low, b.t(), alpha=scale)
        ctx.save_for_backward(flat, weight, a, b, low)
        ctx.scale, ctx.shape = scale, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, weight, a, b, low = ctx.saved_tensors
        grad = gradients[0].reshape(-1, gradients[0].shape[-1])
        small = (grad @ b).mul_(ctx.scale)
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = (grad @ weight).addmm_(small, a).view(ctx.shape)
        return to_x, None, None, small.t() @ flat, (grad.t() @ low).mul_(ctx.scale), None


@contextmanager
def lean(model: Any, adapter: str = "default") -> Iterator[None]:
    """Within the block plain linear layers and norms go the short way; those with dropout or another base PEFT's."""
    changed = []
    for module in model.modules():
        if isinstance(module, Linear) and type(module.base_layer) is torch.nn.Linear:
            dropout = module.lora_dropout[adapter]
            if isinstance(dropout, torch.nn.Identity):
                module.forward = _short(module, adapter)
                changed.append(module)
    try:
        with short_norms(model):
            yield
    finally:
        for module in changed:
            del module.forward


def _short(module: Any, adapter: str) -> Callable[..., torch.Tensor]:
    base, a, b = module.base_layer, module.lora_A[adapter], module.lora_B[adapter]
    scale = module.scaling[adapter]

    def forward(x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        out: torch.Tensor = _LoraLinear.apply(x, base.weight, base.bias, a.weight, b.weight, scale)  # type: ignore[no-untyped-call]
        return out

    return forward
