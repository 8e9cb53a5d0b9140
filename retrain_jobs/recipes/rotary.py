"""Rotary embeddings (Su et al., 2021) in fewer steps than transformers': those turn halves around by copies."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

NAME = "apply_rotary_pos_emb"
"""What modules of transformers call theirs; its arguments are query, key, cosines and sines."""


class _Rotary(torch.autograd.Function):
    """(x1, x2) to (x1 cos1 - x2 sin1, x2 cos2 + x1 sin2), where x1 and x2 are the halves of the last axis."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return turned(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return turned_back(gradients[0], cos, sin), None, None


def turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x as `_Rotary` says."""
    return _turned(x, cos, -_half(sin, 0), _half(sin, 1))


def turned_back(gradient: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """The gradient of x, by the result's."""
    return _turned(gradient, cos, _half(sin, 1), -_half(sin, 0))


@contextmanager
def short_rotations(model: Any) -> Iterator[None]:
    """Within the block attention of the model's kind turns queries and keys the short way, if it is the same."""
    layers = getattr(model.get_decoder(), "layers", None)
    module = sys.modules[type(layers[0].self_attn).__module__] if layers and hasattr(layers[0], "self_attn") else None
    own = getattr(module, NAME, None)
    if own is None or not _is_same(own):
        yield
        return
    setattr(module, NAME, _short)
    try:
        yield
    finally:
        setattr(module, NAME, own)


def _short(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, unsqueeze_dim: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    turned: tuple[torch.Tensor, torch.Tensor] = (_Rotary.apply(query, cos, sin), _Rotary.apply(key, cos, sin))  # type: ignore[no-untyped-call]
    return turned


def _turned(x: torch.Tensor, cos: torch.Tensor, of_second: torch.Tensor, of_first: torch.Tensor) -> torch.Tensor:
    out = x * cos
    _half(out, 0).addcmul_(_half(x, 1), of_second)
    _half(out, 1).addcmul_(_half(x, 0), of_first)
    return out


def _half(x: torch.Tensor, which: int) -> torch.Tensor:
    half: torch.Tensor = x.chunk(2, -1)[which]
    return half


def _is_same(own: Any) -> bool:
    """Asked of it itself: some turn neighbours, or a part of each head."""
    query, cos, sin = (torch.linspace(-1.0, last, 24).view(1, 3, 8) for last in (1.0, 2.0, 3.0))
    heads = query[:, None], 2 * query[:, None]
    theirs = _outcome(own, *heads, cos, sin)
    turns_parts = _outcome(own, *heads, cos[..., :4], sin[..., :4]) is not None
    return theirs is not None and not turns_parts and all(map(torch.allclose, theirs, _short(*heads, cos, sin)))


def _outcome(own: Any, *given: torch.Tensor) -> Any:
    """None if it cannot be asked so."""
    try:
        return own(*given)
    except (TypeError, RuntimeError):
        return None
