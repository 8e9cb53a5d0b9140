"""Whether a base model computes packed rows as it computes each by itself; where it does not, each goes by itself.

Many a model's attention does more than ours (caps, sinks, its own positions) or is none (state spaces): rows would see
each other, and what is trained were not what is served.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import AttentionInterface

from retrain_jobs.encode import Encoded
from retrain_jobs.recipes.attention import attend
from retrain_jobs.recipes.packed import PACKED, Batch, pack, target_logits

log = logging.getLogger(__name__)

_known: WeakKeyDictionary[torch.nn.Module, bool] = WeakKeyDictionary()

_SHARED, _OWN, _ROWS = 9, 7, 3
"""Tokens that rows of the sample begin with and that each has besides: all rows are of one length, since a CPU keeps
kernels, and memory for them, for each."""

_FAR = 16
"""Rounding moves logits by some hundredth of what another beginning does in bfloat16, by 1e-6 of it in float32."""

_ATTEND = frozenset({"full_attention", "sliding_attention"})
"""Of the kinds of layers that configurations name, those that see others by attention alone."""


@contextmanager
def packing(model: Any) -> Iterator[None]:
    """Within the block packed batches are computed in one line, if that is the same, and row by row, if not."""
    if model not in _known:
        _known[model] = _packs(model)
    if not _known[model]:
        yield
        return
    with _packed(model):
        yield


@contextmanager
def _packed(model: Any) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation(PACKED)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@torch.no_grad()
def _packs(model: Any) -> bool:
    """Asked of the model itself: how far a sample's logits move, beside how far they do where a row's beginning is
    another one. Rounding is far below that; rows that see each other, or none of theirs, are not."""
    name, training = type(model).__name__, model.training
    model.eval()
    try:
        sample, other = (_sample(model, first) for first in (11, 12))
        alone = target_logits(model, sample)
        with _packed(model):
            _require_attention(model.config)
            moved = target_logits(model, sample) - alone
        matters = target_logits(model, other) - alone
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        log.warning("%s takes no packed rows, so each is computed by itself, more slowly: %s", name, error)
        return False
    finally:
        model.train(training)
    if float(moved.abs().max()) < float(matters.abs().max()) / _FAR:
        return True
    log.warning("%s computes packed rows otherwise than each by itself, so each is, more slowly", name)
    return False


def _require_attention(config: Any) -> None:
    """Raises TypeError unless all of its layers attend, and by our attention."""
    if config._attn_implementation != PACKED:
        raise TypeError("its attention cannot be another")
    others = set(getattr(config.get_text_config(), "layer_types", None) or ()) - _ATTEND
    if others:
        raise TypeError(f"it has layers of other kinds ({', '.join(sorted(others))})")


def _sample(model: Any, first: int) -> Batch:
    """Rows that begin alike, with this token and some others, and go on unlike, and one that begins otherwise; almost
    all of each is its target, so that its first tokens count, too."""
    tokens = model.get_input_embeddings().num_embeddings

    def some(count: int, first: int) -> tuple[int, ...]:
        return tuple((first + 7919 * place) % tokens for place in range(count))

    rows = [Encoded((*some(_SHARED, first), row), some(_OWN - 1, 100 * row), _SHARED) for row in range(1, 1 + _ROWS)]
    return pack([*rows, Encoded(some(_SHARED + 1, 3 * first), some(_OWN - 1, 5))], model.device)


AttentionInterface.register(PACKED, attend)
