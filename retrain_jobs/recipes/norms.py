"""RMS norms (Zhang and Sennrich, 2019) in fewer steps than transformers': they keep float32 copies of the input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


class _RMSNorm(torch.autograd.Function):
    """y = w x / rms(x) over the last axis."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        out, inverse = normed(x, weight, epsilon)
        ctx.save_for_backward(x, weight, inverse)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        to_weight = None
        if ctx.needs_input_grad[1]:
            to_weight = (gradients[0] * x).mul_(inverse).flatten(0, -2).sum(0, dtype=inverse.dtype).to(weight.dtype)
        return gradient_of_normed(gradients[0], x, weight, inverse), to_weight, None


def normed(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
    """w x / rms(x) over the last axis, and 1 / rms(x). Sums are float32 at least."""
    wide = torch.promote_types(x.dtype, torch.float32)
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
    inverse = norm.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
    out: torch.Tensor = (x * inverse).to(x.dtype).mul_(weight)
    return out, inverse


def gradient_of_normed(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, inverse: torch.Tensor
) -> torch.Tensor:
    """That of x, by the result's."""
    scaled = gradient * weight
    along = (scaled * x).sum(-1, keepdim=True, dtype=inverse.dtype)
    along.mul_(inverse.square()).div_(-x.shape[-1])
    return scaled.addcmul_(x, along.to(x.dtype)).mul_(inverse.to(x.dtype))


@contextmanager
def short_norms(model: Any) -> Iterator[None]:
    """Within the block the model's RMS norms go the short way; other norms their own."""
    with ExitStack() as stack:
        for module in model.modules():
            if type(module).__name__.endswith("RMSNorm") and _is_plain(module):
                module.forward = _short(module)
                stack.callback(delattr, module, "forward")
        yield


def _is_plain(module: Any) -> bool:
    """Asked of the norm itself: some that are called so multiply by 1 + w, or norm groups."""
    weight, epsilon = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
    if epsilon is None or weight is None or weight.dim() != 1:
        return False
    sample = torch.linspace(-1.0, 2.0, 2 * len(weight), device=weight.device, dtype=weight.dtype).view(2, -1)
    with torch.no_grad():
        short = _RMSNorm.apply(sample, weight, epsilon)  # type: ignore[no-untyped-call]
        return torch.allclose(module(sample), short, rtol=8 * torch.finfo(weight.dtype).eps)


def _short(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    weight, epsilon = module.weight, module.variance_epsilon

    def forward(x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = _RMSNorm.apply(x, weight, epsilon)  # type: ignore[no-untyped-call]
        return out

    return forward
