"""Products with weights that lie in memory as bfloat16 and are multiplied as float32, a few rows at a time.

Most models' files are bfloat16, which few CPUs multiply fast; float32 takes twice the memory for the same numbers.
"""

from __future__ import annotations

import torch
from torch.nn.functional import linear

ROWS = 640
"""Of a weight, made wide at once: no more than a cache holds."""


def is_short(weight: torch.Tensor) -> bool:
    """Whether it is float32, and each of its numbers is one of bfloat16's."""
    return weight.dtype is torch.float32 and torch.equal(weight.to(torch.bfloat16).float(), weight)


def forwards(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x W' + bias, in x's type; x is n x in, W out x in, the result n x out."""
    if weight.dtype is x.dtype:
        return linear(x, weight, bias)
    out = x.new_empty(len(x), len(weight))
    for rows, columns in zip(torch.split(weight, ROWS), torch.split(out, ROWS, 1), strict=True):
        torch.mm(x, rows.to(x.dtype).t(), out=columns)
    return out if bias is None else out.add_(bias)


def backwards(gradient: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """gradient W, in the gradient's type; the gradient is n x out, the result n x in."""
    if weight.dtype is gradient.dtype:
        return gradient @ weight
    out = gradient.new_zeros(len(gradient), weight.shape[1])
    for rows, columns in zip(torch.split(weight, ROWS), torch.split(gradient, ROWS, 1), strict=True):
        out.addmm_(columns, rows.to(gradient.dtype))
    return out
