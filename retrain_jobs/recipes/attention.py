"""Causal attention over packed rows: each sees its beginning and itself, side by side with the others.

Rows are padded on the right, where no causal query can see it, and beginnings that several rows share once more, where
a mask hides it.
"""

from __future__ import annotations

from typing import Any

import torch

from retrain_jobs.recipes.looks import Heads, Looks, looks
from retrain_jobs.recipes.packed import Batch

_NO_MATTER = frozenset(
    {"dropout", "position_ids", "use_cache", "output_attentions", "output_hidden_states", "output_router_logits"}
)
"""What transformers' models tell each attention and what changes nothing here; what drops out is LoRA's affair."""


def attend(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: None,
    *, scaling: float, batch: Batch, sliding_window: int | None = None, **more: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Query is 1 x heads x T x size; the result 1 x T x heads x size.

    Raises:
        TypeError: the model's attention does what this one does not, such as a cap (Gemma 2) or sinks (gpt-oss).
    """
    unknown = sorted(name for name, value in more.items() if value is not None and name not in _NO_MATTER)
    if unknown or attention_mask is not None:
        raise TypeError(f"its attention is more than packed attention is ({', '.join(unknown) or 'a mask'})")
    heads = Heads(query.shape[1], key.shape[1], sliding_window)
    line = torch.cat([part[0].transpose(0, 1) for part in (query, key, value)], 1)
    return seen(line, heads, scaling, batch)[None], None


def seen(line: torch.Tensor, heads: Heads, scaling: float, batch: Batch) -> torch.Tensor:
    """Of what each query sees, what it takes: the line is T x all heads x size, the result T x query heads x size."""
    with torch.autocast(line.device.type, enabled=False):  # which would change types between one product and the next
        out: torch.Tensor = _Attention.apply(line, looks(batch, heads, line), scaling)  # type: ignore[no-untyped-call]
    return out


class _Attention(torch.autograd.Function):
    """softmax(scaling Q K') V in each look.

    Plain products of matrices: on a CPU the fused kernel's backward pass is slower for rows of this length.
    """

    @staticmethod
    def forward(ctx: Any, line: torch.Tensor, found: Looks, scaling: float) -> torch.Tensor:
        taken = line.flatten(0, 1).index_select(0, found.taken)
        outs = taken.new_empty(len(found.asked), taken.shape[1])
        shares = []
        for look, part, out in zip(found.each, _parts(found, taken), _asked_parts(found, outs), strict=True):
            query, key, value = look.split(part)
            scores = torch.baddbmm(look.hidden, query, key.transpose(1, 2), alpha=scaling)
            shares.append(torch.softmax(scores, -1).mul_(look.real))
            torch.bmm(shares[-1], value, out=out.view_as(query))
        ctx.save_for_backward(taken, *shares)
        ctx.found, ctx.scaling = found, scaling
        return outs.index_select(0, found.given).view(len(line), found.heads.queries, -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        taken, *shares = ctx.saved_tensors
        found = ctx.found
        to_outs = gradients[0].flatten(0, 1).index_select(0, found.asked)
        to_taken = taken.new_empty(len(taken) + 1, taken.shape[1])
        to_taken[-1].zero_()  # what is padding has nothing to learn
        of_look = zip(
            found.each,
            shares,
            _parts(found, taken),
            _parts(found, to_taken[:-1]),
            _asked_parts(found, to_outs),
            strict=True,
        )
        for look, share, part, to_part, to_out in of_look:
            query, key, value = look.split(part)
            to_query, to_key, to_value = look.split(to_part)
            to_out = to_out.view_as(query)
            torch.bmm(share.transpose(1, 2), to_out, out=to_value)
            to_share = torch.bmm(to_out, value.transpose(1, 2))
            to_scores = torch._softmax_backward_data(to_share, share, -1, share.dtype).mul_(ctx.scaling)
            torch.bmm(to_scores, key, out=to_query)
            torch.bmm(to_scores.transpose(1, 2), query, out=to_key)
        if len(found.each) > 1:
            _add_to_beginnings(found, *_parts(found, to_taken[:-1]))
        return to_taken.index_select(0, found.learned).view(-1, found.heads.all, taken.shape[1]), None, None


def _parts(found: Looks, heads: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Each look's part of what is taken."""
    return torch.split(heads, [sum(look.sizes) for look in found.each])


def _asked_parts(found: Looks, heads: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Each look's part of what is asked."""
    return torch.split(heads, [look.sizes[0] for look in found.each])


def _add_to_beginnings(found: Looks, to_beginnings: torch.Tensor, to_own: torch.Tensor) -> None:
    """The gradient of a beginning's keys and values is its own and that of all rows that have it."""
    beginnings, own = found.each
    for to_first, to_seen in list(zip(beginnings.split(to_beginnings), own.split(to_own), strict=True))[1:]:
        of_rows = to_seen[:, : beginnings.seen].reshape(len(found.begins_with), -1)
        to_first.view(-1, of_rows.shape[1]).index_add_(0, found.begins_with, of_rows)
