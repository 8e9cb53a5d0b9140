"""Rows end to end in one line, without padding: each attends to itself alone, and only its target bears a loss.

What rows begin with alike stands in the line once, before them, and each attends to its own beginning, too.

The linear layers see every token once, and a few of padding at the end: on a CPU each new size of a product costs its
kernels' making, so sizes are rounded up. For attention see `attention.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from retrain_jobs.encode import Encoded
from retrain_jobs.recipes.spared import only

PACKED = "trimtab_packed"
"""Our attention's name among those of transformers."""

STEP = 32
"""What sizes are rounded up to: a twentieth of some 330 tokens. Kernels for each size are memory too."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Pieces of the line side by side: `place` says where in `rows` x `longest` each token from `start` on goes."""

    start: int
    place: torch.Tensor
    rows: int
    longest: int

    @property
    def stop(self) -> int:
        return self.start + len(self.place)

    def tokens(self, line: torch.Tensor, row: int) -> torch.Tensor:
        """The line's that stand in this row."""
        return line[self.start : self.stop][self.place // self.longest == row]


@dataclass(frozen=True, slots=True)
class Batch:
    """R rows of S tokens together, padded to T, of which N are targets.

    Attributes:
        ids, positions: 1 x T; positions begin anew with each row.
        beginnings: what rows share, first in the line; None where they share nothing.
        begins_with, begun: R; which of the beginnings each row has, and how many tokens of it.
        own: what each row has for itself.
        before: N, padded with other places; where in the line each target token's predecessor stands.
        targets, row_of: N; the target's tokens and the row of each.
        kept: what attention makes once for all layers.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    beginnings: Grid | None
    begins_with: torch.Tensor
    begun: torch.Tensor
    own: Grid
    before: torch.Tensor
    targets: torch.Tensor
    row_of: torch.Tensor
    kept: dict[object, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return self.own.rows

    @property
    def tokens(self) -> Tokens:
        return Tokens(self.own.stop, self.ids.shape[1])

    def apart(self) -> Iterator[tuple[torch.Tensor, int]]:
        """Each row's tokens, its beginning's among them, and how many are its target."""
        line = self.ids[0]
        for row in range(self.rows):
            tokens = line[self.own.start : self.own.stop][self.own.place // self.own.longest == row]
            if self.beginnings is not None:
                first = line[: self.own.start][
                    self.beginnings.place // self.beginnings.longest == self.begins_with[row]
                ]
                tokens = torch.cat([first[: self.begun[row]], tokens])
            yield tokens, int((self.row_of == row).sum())


@dataclass(frozen=True, slots=True)
class Tokens:
    """How many a model computes; `used` of them are somebody's, the rest is padding."""

    used: int = 0
    computed: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.used + other.used, self.computed + other.computed)


def pack(rows: Sequence[Encoded], device: torch.device) -> Batch:
    """Lay the rows end to end, behind what they share."""
    beginnings = list(dict.fromkeys(row.prompt[: row.shared] for row in rows if row.shared))
    number_of = {beginning: number for number, beginning in enumerate(beginnings)}
    ids: list[int] = [token for beginning in beginnings for token in beginning]
    positions: list[int] = [place for beginning in beginnings for place in range(len(beginning))]
    before: list[int] = []
    for row in rows:
        before.extend(range(len(ids) + len(row.prompt) - row.shared - 1, len(ids) + row.own - 1))
        ids.extend((*row.prompt[row.shared :], *row.target))
        positions.extend(range(row.shared, len(row)))

    def tensor(values: list[int], step: int = 1) -> torch.Tensor:
        return torch.tensor(values + [0] * (_rounded(len(values), step) - len(values)), device=device)

    def grid(start: int, lengths: list[int]) -> Grid:
        longest = _rounded(max(lengths), 8)
        place = [number * longest + at for number, length in enumerate(lengths) for at in range(length)]
        return Grid(start, tensor(place), len(lengths), longest)

    common = grid(0, [len(beginning) for beginning in beginnings]) if beginnings else None
    spare = sorted(set(range(_rounded(len(ids), STEP))) - set(before))
    targets = [token for row in rows for token in row.target]
    return Batch(
        ids=tensor(ids, STEP)[None],
        positions=tensor(positions, STEP)[None],
        beginnings=common,
        begins_with=tensor([number_of.get(row.prompt[: row.shared], 0) for row in rows]),
        begun=tensor([row.shared for row in rows]),
        own=grid(common.stop if common else 0, [row.own for row in rows]),
        before=tensor(before + spare[: _rounded(len(before), STEP) - len(before)]),
        targets=tensor(targets),
        row_of=tensor([number for number, row in enumerate(rows) for _ in row.target]),
    )


def _rounded(size: int, step: int) -> int:
    return -(-size // step) * step


def target_logits(model: Any, batch: Batch) -> torch.Tensor:
    """N x vocabulary: the head is computed where a target is to be predicted, and nowhere else.

    A model that does not take packed batches (`packing`) computes row by row, and again to learn: memory is a row's.
    """
    if model.config._attn_implementation != PACKED:
        each = [checkpoint(_alone, model, *row, use_reentrant=False) for row in batch.apart()]
        return torch.cat(each).float()
    with only(model, batch.before, batch.tokens.computed):
        out = model(
            input_ids=batch.ids, position_ids=batch.positions, logits_to_keep=batch.before, use_cache=False, batch=batch
        )
    logits: torch.Tensor = out.logits[0, : len(batch.targets)]
    return logits.float()


def _alone(model: Any, row: torch.Tensor, targets: int) -> torch.Tensor:
    out = model(input_ids=row[None], logits_to_keep=targets + 1, use_cache=False)
    logits: torch.Tensor = out.logits[0, -targets - 1 : -1]
    return logits


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
