"""What LoRA layers add to a product (Hu et al., 2021), for several layers side by side, and how they learn.

Gradients go where they are kept at once: autograd's own way there is four small steps for each matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Low:
    """One layer's: it adds scale (x A') B'. A is rank x in, B out x rank."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float


Lows = Sequence[Low]
"""All layers that are given the same activation. Their results lie side by side, and so do their x A'."""


def joined(lows: Lows) -> torch.Tensor:
    """All A, one below the other."""
    return lows[0].a.detach() if len(lows) == 1 else torch.cat([one.a.detach() for one in lows])


def add(out: torch.Tensor, low: torch.Tensor, lows: Lows) -> torch.Tensor:
    """To what the base gives, n x all out, what the layers do; `low` is n x all ranks."""
    for one, outs, ranks in _columns(lows):
        out[:, outs].addmm_(low[:, ranks], one.b.t(), alpha=one.scale)
    return out


def learn_b(gradient: torch.Tensor, low: torch.Tensor, lows: Lows) -> torch.Tensor:
    """From the result's gradient, n x all out; returns that of `low`."""
    to_low = torch.empty_like(low)
    for one, outs, ranks in _columns(lows):
        to_low[:, ranks].addmm_(gradient[:, outs], one.b, beta=0, alpha=one.scale)
        _learn(one.b, gradient[:, outs], low[:, ranks], one.scale)
    return to_low


def learn_a(to_low: torch.Tensor, x: torch.Tensor, lows: Lows) -> None:
    """From the gradient that `learn_b` has found; x is n x in."""
    for one, _, ranks in _columns(lows):
        _learn(one.a, to_low[:, ranks], x)


def _columns(lows: Lows) -> Iterator[tuple[Low, slice, slice]]:
    """Each layer with its columns among all out, and among all ranks."""
    out = rank = 0
    for one in lows:
        outs, ranks = slice(out, out + len(one.b)), slice(rank, rank + len(one.a))
        yield one, outs, ranks
        out, rank = outs.stop, ranks.stop


def _learn(weight: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scale: float = 1.0) -> None:
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    weight.grad.addmm_(left.t(), right, alpha=scale)
