"""The base model's optimizer: what is made orthogonal, and that the way with fewer operations gives the same."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from demo.muon import Muon  # noqa: E402


def update(shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    """What a first step of rate 1 changes."""
    torch.manual_seed(0)
    matrix = torch.zeros(shape)
    matrix.grad = torch.randn(shape) * torch.logspace(-1, 0, shape[1])
    Muon([matrix], dtype=dtype, weight_decay=0.0).step(1.0)
    return -matrix


@pytest.mark.parametrize("shape", [(24, 24), (24, 96), (96, 24)])
def test_an_update_is_nearly_orthogonal(shape: tuple[int, int]) -> None:
    rows, columns = shape
    values = torch.linalg.svdvals(update(shape, torch.float32)) / max(1.0, rows / columns) ** 0.5
    assert values.min() > 0.5
    assert values.max() < 1.3


@pytest.mark.parametrize("shape", [(24, 96), (96, 24)])
def test_products_of_the_gram_matrix_give_what_the_iterations_do(shape: tuple[int, int]) -> None:
    by_iterations = update(shape, torch.float64)
    torch.testing.assert_close(update(shape, torch.float32), by_iterations, rtol=1e-3, atol=1e-4)
