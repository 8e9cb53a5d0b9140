"""The last layer's work on tokens at which nobody looks is left out: only its keys and values are needed there.

What is left out is arithmetic whose result would be thrown away: losses and gradients are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


@contextmanager
def only(model: Any, places: torch.Tensor, length: int) -> Iterator[None]:
    """Within the block, the last layer's parts that see each token alone compute at `places`, each given once, of
    1 x `length` tokens, and give zeros elsewhere."""

    def narrowed(module: torch.nn.Module, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (given[0].index_select(1, places),)

    def widened(module: torch.nn.Module, given: tuple[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
        return out.new_zeros(1, length, out.shape[-1]).index_copy(1, places, out)

    with ExitStack() as stack:
        for part in tokenwise(model):
            stack.callback(part.register_forward_pre_hook(narrowed).remove)
            stack.callback(part.register_forward_hook(widened).remove)
        yield


def tokenwise(model: Any) -> list[torch.nn.Module]:
    """The last layer's feed-forward and attention's outer projections, where they have the usual names; a mixture of
    experts, which gives more than activations, is not among them."""
    layers = getattr(model.get_decoder(), "layers", None)
    if not layers:
        return []
    attention, forward = getattr(layers[-1], "self_attn", None), getattr(layers[-1], "mlp", None)
    found = [getattr(attention, name, None) for name in ("q_proj", "o_proj")]
    found.append(forward if hasattr(forward, "down_proj") else None)
    return [part for part in found if part is not None]
