"""Attention whose queries, keys and values stay side by side from their product to their gradient.

Transformers' own norms, turns and lays out each of the three by itself: on a CPU many small steps cost more than the
arithmetic in them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from retrain_jobs.encode import Encoded
from retrain_jobs.recipes.attention import seen
from retrain_jobs.recipes.looks import Heads
from retrain_jobs.recipes.norms import gradient_of_normed, normed
from retrain_jobs.recipes.packed import PACKED, Batch, pack
from retrain_jobs.recipes.rotary import turned, turned_back

log = logging.getLogger(__name__)

Joint = Callable[[torch.Tensor], torch.Tensor]
"""Of an activation, n x in: queries, keys and values side by side, n x out."""

PROJECTIONS = ("q_proj", "k_proj", "v_proj")
"""What transformers' models call them."""


class _Turned(torch.autograd.Function):
    """Norms, where there are any, and turns the first heads of a line, T x all heads x size; the others are values."""

    @staticmethod
    def forward(
        ctx: Any, line: torch.Tensor, weight: torch.Tensor | None, epsilon: float, cos: torch.Tensor, sin: torch.Tensor,
        heads: int,
    ) -> torch.Tensor:  # fmt: skip
        first, values = line[:, :heads], line[:, heads:]
        inverse = None
        if weight is not None:
            first, inverse = normed(first, weight, epsilon)
        ctx.save_for_backward(line, weight, inverse, cos, sin)
        ctx.heads = heads
        return torch.cat([turned(first, cos, sin), values], 1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        line, weight, inverse, cos, sin = ctx.saved_tensors
        to_first, to_values = gradients[0][:, : ctx.heads], gradients[0][:, ctx.heads :]
        to_first = turned_back(to_first, cos, sin)
        if weight is not None:
            to_first = gradient_of_normed(to_first, line[:, : ctx.heads], weight, inverse)
        return torch.cat([to_first, to_values], 1), None, None, None, None, None


@contextmanager
def short_attention(model: Any, joint: Callable[[Any], Joint | None]) -> Iterator[None]:
    """Within the block attention of packed batches goes the short way where that is the same.

    Args:
        joint: what gives an attention's queries, keys and values in one product; None where there is no such thing.
    """
    with ExitStack() as stack:
        for module in model.modules():
            short = _short(module, joint(module)) if _may_be_short(module) else None
            if short is not None:
                module.forward = short
                stack.callback(delattr, module, "forward")
        yield


def _may_be_short(module: Any) -> bool:
    """Whether it has what one has, by their usual names, in no quantized form, and is given packed batches."""
    return (
        all(hasattr(module, name) for name in (*PROJECTIONS, "o_proj", "head_dim", "scaling", "config"))
        and module.config._attn_implementation == PACKED
        and module.o_proj.weight.is_floating_point()
    )


@torch.no_grad()
def _short(module: Any, joint: Joint | None) -> Callable[..., Any] | None:
    """The short way, if it is the same: asked of the module itself, some norm whole lines or cap what is seen."""
    weight = module.o_proj.weight
    batch = pack([Encoded((1,) * 5, (1,) * 3), Encoded((1,) * 9, (1,))], weight.device)
    wide = batch.tokens.computed

    def sample(size: int) -> torch.Tensor:
        return torch.arange(wide * size, device=weight.device).sin().to(weight.dtype).view(1, wide, size)

    given = sample(module.q_proj.in_features), (sample(module.head_dim), sample(module.head_dim).flip(1)), None
    try:
        theirs = module.forward(*given, batch=batch)[0]
        (found,) = batch.kept.values()
        short = _forward(module, found.heads, joint)
        ours = short(*given, batch=batch)[0]
    except (AttributeError, TypeError, RuntimeError, ValueError) as error:
        log.info("%s goes its own way: %s", type(module).__name__, error)
        return None
    real = slice(batch.own.stop)
    near = 16 * torch.finfo(weight.dtype).eps
    return short if torch.allclose(ours[:, real], theirs[:, real], near, near * float(theirs.abs().max())) else None


def _forward(module: Any, heads: Heads, joint: Joint | None) -> Callable[..., Any]:
    weight, epsilon = _norms(module, heads)
    own, size = module.forward, module.head_dim

    def forward(
        hidden_states: torch.Tensor, position_embeddings: tuple[torch.Tensor, torch.Tensor], *given: Any,
        batch: Batch | None = None, **named: Any,
    ) -> Any:  # fmt: skip
        cos, sin = (one[0].unsqueeze(1) for one in position_embeddings)
        if batch is None or cos.shape[-1] != size:
            named |= {} if batch is None else {"batch": batch}
            return own(hidden_states, position_embeddings, *given, **named)
        if joint is not None:
            line = joint(hidden_states[0])
        else:
            line = torch.cat([getattr(module, name)(hidden_states)[0] for name in PROJECTIONS], 1)
        line = line.view(len(line), heads.all, size)
        line = _Turned.apply(line, weight, epsilon, cos, sin, heads.queries + heads.keys)  # type: ignore[no-untyped-call]
        out = seen(line, heads, module.scaling, batch)
        return module.o_proj(out.view(1, len(out), -1)), None

    return forward


def _norms(module: Any, heads: Heads) -> tuple[torch.Tensor | None, float]:
    """What queries and keys are normed with, head by head, and the epsilon; None where they are not."""
    if getattr(module, "q_norm", None) is None:
        return None, 0.0
    query, key = module.q_norm.weight.detach(), module.k_norm.weight.detach()
    return torch.cat([query.expand(heads.queries, -1), key.expand(heads.keys, -1)]), module.q_norm.variance_epsilon
