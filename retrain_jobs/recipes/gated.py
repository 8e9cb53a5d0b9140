"""A gated feed-forward (Shazeer, 2020) that remembers half as much: what follows from gate and up is computed again.

Activations are most of what a training keeps until its way back, and these are most of the activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch.nn.functional import silu

from retrain_jobs.recipes.low import Lows, add, joined, learn_a, learn_b
from retrain_jobs.recipes.wide import backwards, forwards


class Down(Protocol):
    """The last layer: its base's weight and bias, what its LoRA adds, and the LoRA's own weights."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    lows: Lows

    def weights(self) -> Iterator[torch.Tensor]: ...


class _GatedLora(torch.autograd.Function):
    """y = z W' + bias and what LoRA adds, with z = silu(gate) up; the weight is frozen.

    gate and up lie side by side: T x 2 inner. The layer's own weights, given last, learn by themselves.
    """

    @staticmethod
    def forward(
        ctx: Any, both: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, lows: Lows, *_: torch.Tensor
    ) -> torch.Tensor:
        gate, up = both.chunk(2, -1)
        inner, a = silu(gate).mul_(up), joined(lows)
        low = inner @ a.t()
        ctx.save_for_backward(both, weight, a, low)
        ctx.lows = lows
        return add(forwards(inner, weight, bias), low, lows)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        both, weight, a, low = ctx.saved_tensors
        grad = gradients[0]
        gate, up = both.chunk(2, -1)
        opened = silu(gate)
        to_low = learn_b(grad, low, ctx.lows)
        to_inner = backwards(grad, weight).addmm_(to_low, a)
        to_both = torch.empty_like(both)
        to_gate, to_up = to_both.chunk(2, -1)
        torch.mul(to_inner, opened, out=to_up)
        torch.ops.aten.silu_backward.grad_input(to_inner.mul_(up), gate, grad_input=to_gate)
        learn_a(to_low, opened.mul_(up), ctx.lows)
        return to_both, *(None,) * (len(ctx.needs_input_grad) - 1)


def gated(both: Callable[[torch.Tensor], torch.Tensor], down: Down) -> Callable[[torch.Tensor], torch.Tensor]:
    """A feed-forward's forward, of what gives gate and up side by side, and of its last layer."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        side_by_side = both(x)
        flat = side_by_side.reshape(-1, side_by_side.shape[-1])
        out: torch.Tensor = _GatedLora.apply(flat, down.weight, down.bias, down.lows, *down.weights())  # type: ignore[no-untyped-call]
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
