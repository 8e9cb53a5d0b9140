"""A gated feed-forward (Shazeer, 2020) that remembers half as much: what follows from gate and up is computed again.

Activations are most of what a training keeps until its way back, and these are most of the activations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import silu

from retrain_jobs.recipes.wide import backwards, forwards


class _GatedLora(torch.autograd.Function):
    """y = z W' + bias + (z A') B with z = silu(gate) up; the weight is frozen.

    gate and up lie side by side: T x 2 inner. A is rank x inner, B rank x out, scaled.
    """

    @staticmethod
    def forward(
        ctx: Any, both: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor
    ) -> torch.Tensor:
        gate, up = both.chunk(2, -1)
        inner = silu(gate).mul_(up)
        low = inner @ a.t()
        ctx.save_for_backward(both, weight, a, b, low)
        return forwards(inner, weight, bias).addmm_(low, b)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        both, weight, a, b, low = ctx.saved_tensors
        grad = gradients[0]
        gate, up = both.chunk(2, -1)
        opened = silu(gate)
        small = grad @ b.t()
        to_inner = backwards(grad, weight).addmm_(small, a)
        to_both = torch.empty_like(both)
        to_gate, to_up = to_both.chunk(2, -1)
        torch.mul(to_inner, opened, out=to_up)
        torch.ops.aten.silu_backward.grad_input(to_inner.mul_(up), gate, grad_input=to_gate)
        return to_both, None, None, small.t() @ opened.mul_(up), low.t() @ grad


def gated(
    both: Callable[[torch.Tensor], torch.Tensor],
    down: Any,
    weights: Callable[[], tuple[torch.Tensor, torch.Tensor]],
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A feed-forward's forward, of what gives gate and up side by side, and of its last layer's base, A and B."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        side_by_side = both(x)
        flat = side_by_side.reshape(-1, side_by_side.shape[-1])
        out: torch.Tensor = _GatedLora.apply(flat, down.weight, down.bias, *weights())  # type: ignore[no-untyped-call]
        return out.view(*x.shape[:-1], -1)

    return forward


def may_be_gated(module: Any) -> bool:
    """Whether it has the layers of one, by their usual names; whether it is one `is_same` says."""
    return all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj"))


@torch.no_grad()
def is_same(module: Any, short: Callable[[torch.Tensor], torch.Tensor]) -> bool:
    """Asked of it itself: some have another activation, or scale what comes between."""
    weight = module.gate_proj.weight
    sample = torch.linspace(-2.0, 3.0, 3 * weight.shape[-1], device=weight.device, dtype=weight.dtype).view(1, 3, -1)
    return torch.allclose(module.forward(sample), short(sample), rtol=8 * torch.finfo(weight.dtype).eps)
