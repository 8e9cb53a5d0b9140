"""Rows end to end in one line, without padding: each attends to itself alone, and only its target bears a loss.

The linear layers see every token once, and a few of padding at the end: on a CPU each new size of a product costs its
kernels' making, so sizes are rounded up. Attention gets the rows side by side, padded on the right,
where no causal query can see it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy, pad
from transformers import AttentionInterface

from retrain_jobs.encode import Encoded
from retrain_jobs.recipes.spared import only

PACKED = "trimtab_packed"
"""Our attention's name among those of transformers."""

STEP = 32
"""What sizes are rounded up to: a twentieth of some 330 tokens. Kernels for each size are memory too."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of S tokens together, padded to T, of which N are targets.

    Attributes:
        ids, positions: 1 x T; positions begin anew with each row.
        place: S; where each token goes in a grid of `rows` x `longest`.
        before: N, padded with other places; where in the line each target token's predecessor stands.
        targets, row_of: N; the target's tokens and the row of each.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    place: torch.Tensor
    before: torch.Tensor
    targets: torch.Tensor
    row_of: torch.Tensor
    rows: int
    longest: int

    @property
    def computed(self) -> int:
        """Tokens that the model computes; `len(place)` of them are somebody's."""
        return self.ids.shape[1]


def pack(rows: Sequence[Encoded], device: torch.device) -> Batch:
    """Lay the rows end to end."""
    longest = _rounded(max(map(len, rows)), 8)
    ids: list[int] = []
    positions: list[int] = []
    place: list[int] = []
    before: list[int] = []
    targets: list[int] = []
    row_of: list[int] = []
    for number, row in enumerate(rows):
        before.extend(range(len(ids) + len(row.prompt) - 1, len(ids) + len(row) - 1))
        ids.extend((*row.prompt, *row.target))
        positions.extend(range(len(row)))
        place.extend(range(number * longest, number * longest + len(row)))
        targets.extend(row.target)
        row_of.extend([number] * len(row.target))

    def tensor(values: list[int], step: int = 1) -> torch.Tensor:
        return torch.tensor(values + [0] * (_rounded(len(values), step) - len(values)), device=device)

    spare = sorted(set(range(_rounded(len(ids), STEP))) - set(before))
    before += spare[: _rounded(len(before), STEP) - len(before)]
    return Batch(
        tensor(ids, STEP)[None], tensor(positions, STEP)[None], tensor(place), tensor(before), tensor(targets),
        tensor(row_of), len(rows), longest,
    )  # fmt: skip


def _rounded(size: int, step: int) -> int:
    return -(-size // step) * step


@contextmanager
def packing(model: Any) -> Iterator[None]:
    """Within the block the model takes packed batches, and nothing else."""
    before = model.config._attn_implementation
    model.set_attn_implementation(PACKED)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def target_logits(model: Any, batch: Batch) -> torch.Tensor:
    """N x vocabulary: the head is computed where a target is to be predicted, and nowhere else."""
    with only(model, batch.before, batch.computed):
        out = model(
            input_ids=batch.ids, position_ids=batch.positions, logits_to_keep=batch.before, use_cache=False, batch=batch
        )
    logits: torch.Tensor = out.logits[0, : len(batch.targets)]
    return logits.float()


def log_probabilities(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """That of each row's whole target, in nats."""
    losses = cross_entropy(logits, batch.targets, reduction="none")
    return losses.new_zeros(batch.rows).index_add(0, batch.row_of, -losses)


def row_losses(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Each row's mean loss (nats a target token), so that long targets weigh no more than short ones."""
    losses = cross_entropy(logits, batch.targets, reduction="none")
    ones = torch.ones_like(losses)
    zeros = losses.new_zeros(batch.rows)
    return zeros.index_add(0, batch.row_of, losses) / zeros.index_add(0, batch.row_of, ones)


def attend(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: None,
    *, scaling: float, batch: Batch, sliding_window: int | None = None, **_: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Causal attention within each row. Query is 1 x heads x T x size; the result 1 x T x heads x size.

    Plain products of matrices: on a CPU the fused kernel's backward pass is slower for rows of this length.
    """
    kv_heads, longest = key.shape[1], batch.longest
    groups = query.shape[1] // kv_heads
    size = value.shape[-1]

    def grid(line: torch.Tensor) -> torch.Tensor:
        """1 x heads x T x size to (rows * kv heads) x (groups * longest) x size: a head's group shares its keys."""
        flat = line[0].transpose(0, 1).flatten(1)[: len(batch.place)]
        spread = flat.new_zeros(batch.rows * longest, flat.shape[1]).index_copy(0, batch.place, flat)
        split = spread.view(batch.rows, longest, kv_heads, -1, line.shape[-1])
        return split.permute(0, 2, 3, 1, 4).reshape(batch.rows * kv_heads, -1, line.shape[-1])

    asking = grid(query)
    hidden = _hidden(longest, sliding_window, asking).repeat(groups, 1)
    weights = torch.softmax(torch.baddbmm(hidden, asking, grid(key).transpose(1, 2), alpha=scaling), -1)
    out = torch.bmm(weights, grid(value)).view(batch.rows, kv_heads * groups, longest, size)
    line = out.transpose(1, 2).reshape(batch.rows * longest, -1).index_select(0, batch.place)
    return pad(line, (0, 0, 0, batch.computed - len(line))).view(1, -1, kv_heads * groups, size), None


def _hidden(longest: int, window: int | None, like: torch.Tensor) -> torch.Tensor:
    """longest x longest: minus infinity where a query may not look."""
    ones = torch.ones(longest, longest, dtype=torch.bool, device=like.device)
    banned = ones.triu(1)
    if window is not None and window < longest:
        banned = banned | ones.tril(-window)
    return like.new_zeros(longest, longest).masked_fill(banned, float("-inf"))


AttentionInterface.register(PACKED, attend)
