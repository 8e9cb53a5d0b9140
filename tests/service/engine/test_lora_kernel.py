"""The compiled kernel against its definition, row by row."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("vllm")

from service.engine.lora_kernel import FORMATS, Kernel, rank_in_use

SLOTS, RANK, WIDTH, OUTS = 4, 8, 24, (16, 8, 8)
USED = {
    "one row": [2],
    "one slot": [1] * 7,
    "a group and a rest of each": [0, 3, 1, 0, 0, 3, 0, 0, 3],
    "with rows of no adapter": [-1, 2, -1, 0, 2, -1],
    "none at all": [-1, -1],
}


Adapters = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
types = pytest.mark.parametrize("dtype", FORMATS)


def stacked(dtype: torch.dtype, rank: int = RANK) -> Adapters:
    a = tuple(torch.randn(SLOTS, 1, rank, WIDTH).to(dtype) for _ in OUTS)
    return a, tuple(torch.randn(SLOTS, 1, out, rank).to(dtype) for out in OUTS)


def rows(count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """y and x."""
    return torch.randn(count, sum(OUTS)).to(dtype), torch.randn(count, WIDTH).to(dtype)


def expected(
    y: Tensor, x: Tensor, a: tuple[Tensor, ...], b: tuple[Tensor, ...], used: list[int], scale: float
) -> Tensor:
    """Two matmuls a row and slice in float64, each rounded to the type."""
    result = y.clone()
    for row, slot in enumerate(used):
        if slot >= 0:
            h = [((part[slot, 0].double() @ x[row].double()).to(y.dtype) * scale).double() for part in a]
            change = torch.cat([part[slot, 0].double() @ one for part, one in zip(b, h, strict=True)])
            result[row] += change.to(y.dtype)
    return result


def assert_close(y: Tensor, want: Tensor) -> None:
    """Sums in another order may round the other way: one unit in the last place of h or of the result."""
    if y.dtype is torch.float32:
        torch.testing.assert_close(y, want, rtol=1e-5, atol=2e-5)
    else:
        torch.testing.assert_close(y, want, rtol=2**-7, atol=0.06)
        assert (y == want).float().mean() > 0.97


def apply(kernel: Kernel, y: Tensor, x: Tensor, used: list[int], scale: float = 1.0) -> None:
    slots = torch.tensor(used)
    kernel(y, x, len(slots), slots.data_ptr(), scale)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@types
@pytest.mark.parametrize("used", USED.values(), ids=USED.keys())
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_each_row_is_changed_by_its_own_slot_only(used: list[int], scale: float, dtype: torch.dtype) -> None:
    (y, x), (a, b) = rows(len(used), dtype), stacked(dtype)
    want, kernel = expected(y, x, a, b, used, scale), Kernel(a, b)
    assert kernel.takes(y, x, len(x), 1)
    apply(kernel, y, x, used, scale)
    assert_close(y, want)


@types
def test_a_row_does_not_depend_on_the_rows_beside_it(dtype: torch.dtype) -> None:
    (y, x), (a, b) = rows(9, dtype), stacked(dtype)
    kernel, alone = Kernel(a, b), y[4:5].clone()
    apply(kernel, y, x, [2, 1, 2, 0, 2, 2, 2, 1, 2])
    apply(kernel, alone, x[4:5].clone(), [2])
    assert torch.equal(y[4:5], alone)


@types
@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_what_overflows_stays_in_its_own_rows_and_shows_there(bad: float, dtype: torch.dtype) -> None:
    x, y, (a, b) = torch.ones(4, WIDTH, dtype=dtype), torch.zeros(4, sum(OUTS), dtype=dtype), stacked(dtype)
    for part in a:
        part[1] = bad
    apply(Kernel(a, b), y, x, [0, 1, 2, 1])
    assert y[[0, 2]].isfinite().all()
    assert not y[[1, 3]].isfinite().any()


@types
def test_it_takes_few_rows_of_its_own_type_only(dtype: torch.dtype) -> None:
    kernel = Kernel(*stacked(dtype))
    most = FORMATS[dtype].limit // (RANK * (len(OUTS) * WIDTH + sum(OUTS)))
    y, x = rows(most, dtype)
    assert kernel.takes(y, x, len(x), 1)
    one_more = torch.cat([y, y[:1]]), torch.cat([x, x[:1]]), most + 1
    assert not kernel.takes(*one_more, 1)
    assert kernel.takes(*one_more, 2), "for which the matmuls would compute twice as much"
    assert not kernel.takes(y, x, most - 1, 1)
    for other in {torch.float32, torch.bfloat16, torch.float16} - {dtype}:
        assert not kernel.takes(y.to(other), x, most, 1)
        assert not kernel.takes(y, x.to(other), most, 1)
        assert not kernel.takes(y.to(other), x.to(other), most, 1)
    assert not kernel.takes(y, x.t().contiguous().t(), most, 1)
    assert not kernel.takes(torch.zeros(most, 40, dtype=dtype)[:, : sum(OUTS)], x, most, 1)


@pytest.mark.parametrize(("rank", "dtype"), [(1, torch.bfloat16), (1, torch.float32), (8, torch.float16)])
def test_other_ranks_and_types_are_left_to_the_matmuls(rank: int, dtype: torch.dtype) -> None:
    assert not Kernel(*stacked(dtype, rank)).takes(*rows(1, dtype), 1, 1)


@pytest.mark.parametrize("mixed", [torch.float32, torch.bfloat16])
def test_weights_of_mixed_types_are_left_to_the_matmuls(mixed: torch.dtype) -> None:
    (a, _), (_, b) = stacked(torch.float32), stacked(torch.bfloat16)
    assert not Kernel(a, b).takes(*rows(1, mixed), 1, 1)


@types
@pytest.mark.parametrize(("rank", "computed"), [(0, 4), (1, 4), (4, 4), (5, 8), (8, 8)])
def test_ranks_that_no_slot_uses_are_not_computed(rank: int, computed: int, dtype: torch.dtype) -> None:
    (y, x), (a, b) = rows(3, dtype), stacked(dtype)
    for part in a:
        part[:, :, rank:] = 0
    want = expected(y, x, a, b, [0, 1, 2], 1.0)
    assert rank_in_use(a) == computed
    apply(Kernel(a, b), y, x, [0, 1, 2])
    assert_close(y, want)
