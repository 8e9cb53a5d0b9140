"""The compiled kernel against its definition, row by row."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("vllm")

from service.engine.lora_kernel import LIMIT, Kernel, rank_in_use

SLOTS, RANK, WIDTH, OUTS = 4, 8, 24, (16, 8, 8)
USED = {
    "one row": [2],
    "one slot": [1] * 7,
    "a group and a rest of each": [0, 3, 1, 0, 0, 3, 0, 0, 3],
    "with rows of no adapter": [-1, 2, -1, 0, 2, -1],
    "none at all": [-1, -1],
}


def stacked(outs: tuple[int, ...] = OUTS, rank: int = RANK) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    a = tuple(torch.randn(SLOTS, 1, rank, WIDTH).bfloat16() for _ in outs)
    return a, tuple(torch.randn(SLOTS, 1, out, rank).bfloat16() for out in outs)


def expected(
    y: Tensor, x: Tensor, a: tuple[Tensor, ...], b: tuple[Tensor, ...], used: list[int], scale: float
) -> Tensor:
    """Two matmuls a row and slice, each rounded to bfloat16."""
    result = y.clone()
    for row, slot in enumerate(used):
        if slot >= 0:
            h = [((part[slot, 0].double() @ x[row].double()).bfloat16() * scale).double() for part in a]
            change = torch.cat([part[slot, 0].double() @ one for part, one in zip(b, h, strict=True)])
            result[row] += change.bfloat16()
    return result


def apply(kernel: Kernel, y: Tensor, x: Tensor, used: list[int], scale: float = 1.0) -> None:
    slots = torch.tensor(used)
    kernel(y, x, len(slots), slots.data_ptr(), scale)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("used", USED.values(), ids=USED.keys())
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_each_row_is_changed_by_its_own_slot_only(used: list[int], scale: float) -> None:
    x, y, (a, b) = torch.randn(len(used), WIDTH).bfloat16(), torch.randn(len(used), sum(OUTS)).bfloat16(), stacked()
    want, kernel = expected(y, x, a, b, used, scale), Kernel(a, b)
    assert kernel.takes(y, x, len(x), 1)
    apply(kernel, y, x, used, scale)
    # Sums in another order may round the other way: one unit in the last place of h or of the result.
    torch.testing.assert_close(y, want, rtol=2**-7, atol=0.06)
    assert (y == want).float().mean() > 0.97


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    x, y, (a, b) = torch.randn(9, WIDTH).bfloat16(), torch.randn(9, sum(OUTS)).bfloat16(), stacked()
    kernel, alone = Kernel(a, b), y[4:5].clone()
    apply(kernel, y, x, [2, 1, 2, 0, 2, 2, 2, 1, 2])
    apply(kernel, alone, x[4:5].clone(), [2])
    assert torch.equal(y[4:5], alone)


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_what_overflows_stays_in_its_own_rows_and_shows_there(bad: float) -> None:
    x, y, (a, b) = torch.ones(4, WIDTH).bfloat16(), torch.zeros(4, sum(OUTS)).bfloat16(), stacked()
    for part in a:
        part[1] = bad
    apply(Kernel(a, b), y, x, [0, 1, 2, 1])
    assert y[[0, 2]].isfinite().all()
    assert not y[[1, 3]].isfinite().any()


def test_it_takes_few_rows_of_plain_bfloat16_only() -> None:
    a, b = stacked()
    kernel = Kernel(a, b)
    most = LIMIT // (RANK * (len(OUTS) * WIDTH + sum(OUTS)))
    x, y = torch.zeros(most, WIDTH).bfloat16(), torch.zeros(most, sum(OUTS)).bfloat16()
    assert kernel.takes(y, x, len(x), 1)
    one_more = torch.cat([y, y[:1]]), torch.cat([x, x[:1]]), most + 1
    assert not kernel.takes(*one_more, 1)
    assert kernel.takes(*one_more, 2), "for which the matmuls would compute twice as much"
    assert not kernel.takes(y, x, most - 1, 1)
    assert not kernel.takes(y.float(), x, most, 1)
    assert not kernel.takes(y, x.float(), most, 1)
    assert not kernel.takes(y, x.t().contiguous().t(), most, 1)
    assert not kernel.takes(torch.zeros(most, 40).bfloat16()[:, : sum(OUTS)], x, most, 1)


@pytest.mark.parametrize(("rank", "dtype"), [(1, torch.bfloat16), (8, torch.float16), (8, torch.float32)])
def test_other_ranks_and_types_are_left_to_the_matmuls(rank: int, dtype: torch.dtype) -> None:
    a, b = (tuple(part.to(dtype) for part in side) for side in stacked(rank=rank))
    assert not Kernel(a, b).takes(torch.zeros(1, sum(OUTS)).bfloat16(), torch.zeros(1, WIDTH).bfloat16(), 1, 1)


@pytest.mark.parametrize(("rank", "computed"), [(0, 4), (1, 4), (4, 4), (5, 8), (8, 8)])
def test_ranks_that_no_slot_uses_are_not_computed(rank: int, computed: int) -> None:
    a, b = stacked()
    for part in a:
        part[:, :, rank:] = 0
    x, y = torch.randn(3, WIDTH).bfloat16(), torch.randn(3, sum(OUTS)).bfloat16()
    want = expected(y, x, a, b, [0, 1, 2], 1.0)
    assert rank_in_use(a) == computed
    apply(Kernel(a, b), y, x, [0, 1, 2])
    torch.testing.assert_close(y, want, rtol=2**-7, atol=0.06)
