"""Causal attention over packed rows: each sees its beginning and itself, side by side with the others.

Rows are padded on the right, where no causal query can see it, and beginnings that several rows share once more, where
a mask hides it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import AttentionInterface

from retrain_jobs.recipes.packed import Batch, Grid

PACKED = "trimtab_packed"
"""Our attention's name among those of transformers."""


@contextmanager
def packing(model: Any) -> Iterator[None]:
    """Within the block the model takes packed batches, and nothing else."""
    before = model.config._attn_implementation
    model.set_attn_implementation(PACKED)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def attend(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: None,
    *, scaling: float, batch: Batch, sliding_window: int | None = None, **_: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Query is 1 x heads x T x size; the result 1 x T x heads x size.

    Plain products of matrices: on a CPU the fused kernel's backward pass is slower for rows of this length.
    """
    heads, own, beginnings = key.shape[1], batch.own, batch.beginnings
    groups = query.shape[1] // heads
    asking, keys, values = (line[0].transpose(0, 1) for line in (query, key, value))

    def grid(of: Grid, line: torch.Tensor) -> torch.Tensor:
        """T x heads x size to (rows * heads of keys) x (groups * longest) x size: a head's group shares its keys."""
        spread: torch.Tensor = _Spread.apply(line[of.start : of.stop].flatten(1), of.place, of.rows * of.longest)  # type: ignore[no-untyped-call]
        split = spread.view(of.rows, of.longest, heads, -1, line.shape[-1])
        return split.permute(0, 2, 3, 1, 4).reshape(of.rows * heads, -1, line.shape[-1])

    def seen(of: Grid, k: torch.Tensor, v: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Tokens x (all heads * size)."""
        weights = torch.softmax(torch.baddbmm(hidden, grid(of, asking), k.transpose(1, 2), alpha=scaling), -1)
        out = torch.bmm(weights, v).view(of.rows, heads * groups, of.longest, -1)
        gathered: torch.Tensor = _Gather.apply(out.transpose(1, 2).reshape(of.rows * of.longest, -1), of.place)  # type: ignore[no-untyped-call]
        return gathered

    k, v = grid(own, keys), grid(own, values)
    hidden = _itself(own.longest, sliding_window, query).repeat(groups, 1)
    if beginnings is None:
        line = seen(own, k, v, hidden)
    else:
        first = grid(beginnings, keys), grid(beginnings, values)
        begun = seen(beginnings, *first, _itself(beginnings.longest, sliding_window, query).repeat(groups, 1))
        k, v = (torch.cat([_given(one, batch), two], 1) for one, two in zip(first, (k, v), strict=True))
        line = torch.cat([begun, seen(own, k, v, _begun(batch, heads, hidden, sliding_window))])
    return pad(line, (0, 0, 0, batch.tokens.computed - len(line))).view(1, -1, heads * groups, value.shape[-1]), None


class _Spread(torch.autograd.Function):
    """Each row of n x size to its own place among `rows`, the others zero."""

    @staticmethod
    def forward(ctx: Any, flat: torch.Tensor, place: torch.Tensor, rows: int) -> torch.Tensor:
        ctx.save_for_backward(place)
        return _spread(flat, place, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (place,) = ctx.saved_tensors
        return gradients[0].index_select(0, place), None, None


class _Gather(torch.autograd.Function):
    """The way back; autograd's own would add up, since it cannot know that no place is there twice."""

    @staticmethod
    def forward(ctx: Any, spread: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(place)
        ctx.rows = len(spread)
        return spread.index_select(0, place)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (place,) = ctx.saved_tensors
        return _spread(gradients[0], place, ctx.rows), None


def _spread(flat: torch.Tensor, place: torch.Tensor, rows: int) -> torch.Tensor:
    return flat.new_zeros(rows, flat.shape[1]).index_copy_(0, place, flat)


def _given(beginnings: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Each row's: (beginnings * heads) x longest x size to (rows * heads) x longest x size."""
    assert batch.beginnings is not None
    each = beginnings.view(batch.beginnings.rows, -1, *beginnings.shape[1:])
    return each.index_select(0, batch.begins_with).flatten(0, 1)


def _begun(batch: Batch, heads: int, itself: torch.Tensor, window: int | None) -> torch.Tensor:
    """(rows * heads) x (groups * longest) x (longest beginning + longest): where a query may look, `itself` and before.

    Made once for all layers.
    """
    key = heads, itself.shape, window
    if key not in batch.masks:
        assert batch.beginnings is not None
        begun = batch.begun[:, None, None]
        places = torch.arange(batch.beginnings.longest, device=itself.device)
        asking = torch.arange(len(itself), device=itself.device)[:, None] % batch.own.longest
        banned = (places >= begun).expand(-1, len(itself), -1)
        if window is not None:
            banned = banned | (places <= begun + asking - window)
        begin = itself.new_zeros(banned.shape).masked_fill_(banned, float("-inf"))
        both = torch.cat([begin, itself.expand(batch.rows, -1, -1)], 2)
        batch.masks[key] = both.repeat_interleave(heads, 0)
    return batch.masks[key]


def _itself(longest: int, window: int | None, like: torch.Tensor) -> torch.Tensor:
    """longest x longest: minus infinity where a query may not look."""
    ones = torch.ones(longest, longest, dtype=torch.bool, device=like.device)
    banned = ones.triu(1)
    if window is not None and window < longest:
        banned = banned | ones.tril(-window)
    return like.new_zeros(longest, longest).masked_fill(banned, float("-inf"))


AttentionInterface.register(PACKED, attend)
