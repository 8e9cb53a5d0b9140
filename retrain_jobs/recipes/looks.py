"""Which tokens of packed rows see which, and where each stands when rows lie side by side. Made once for all layers.

A line's heads are T x all x size: first the queries' heads, then the keys', then the values'. Several query heads, one
after the other, share a key head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from retrain_jobs.recipes.packed import Batch, Grid


@dataclass(frozen=True, slots=True)
class Heads:
    """How many of queries, and of keys; a query sees `window` tokens at most, itself among them, or all before it."""

    queries: int
    keys: int
    window: int | None = None

    @property
    def all(self) -> int:
        return self.queries + 2 * self.keys


@dataclass(frozen=True, slots=True)
class Look:
    """Lists of queries, one for each row and key head, each beside the list of keys that they see.

    Attributes:
        lists, asking, seen: how many, and how long.
        hidden: (1 or lists) x asking x seen; minus infinity where a query may not look.
        real: lists x asking x 1; 1 where there is a token, 0 where there is padding.
    """

    lists: int
    asking: int
    seen: int
    hidden: torch.Tensor
    real: torch.Tensor

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Heads of its queries, keys and values."""
        return self.lists * self.asking, self.lists * self.seen, self.lists * self.seen

    def split(self, heads: torch.Tensor) -> Iterator[torch.Tensor]:
        """Its heads as queries, keys and values, each lists x n x size."""
        return (part.view(self.lists, -1, heads.shape[1]) for part in torch.split(heads, list(self.sizes)))


@dataclass(frozen=True, slots=True)
class Looks:
    """All looks of a batch; that of beginnings is first, where there are any.

    Attributes:
        taken: which of T x all heads each look's queries, keys and values are, look after look.
        asked: the same of queries alone, among T x queries.
        given: T x queries, flat; which of `asked` each head is.
        learned: T x all, flat; which of `taken` each head is, its own row's; of padding, the one behind the last.
        begins_with: rows; as the batch says.
    """

    heads: Heads
    each: tuple[Look, ...]
    taken: torch.Tensor
    asked: torch.Tensor
    given: torch.Tensor
    learned: torch.Tensor
    begins_with: torch.Tensor


def looks(batch: Batch, heads: Heads, like: torch.Tensor) -> Looks:
    """The batch's, for heads of this type."""
    key = heads, like.dtype
    if key not in batch.kept:
        batch.kept[key] = _made(batch, heads, like)
    found: Looks = batch.kept[key]
    return found


def _made(batch: Batch, heads: Heads, like: torch.Tensor) -> Looks:
    each: list[Look] = []
    taken: list[torch.Tensor] = []
    asked: list[torch.Tensor] = []
    given: list[torch.Tensor] = []
    learned: list[torch.Tensor] = []
    for grid, tokens, seen in _sides(batch):
        look = _look(batch, grid, seen.shape[1], heads, like)
        before, asked_before = _count(taken), _count(asked)
        of_query = _slots(grid, heads.queries, grid.longest)
        of_key = _slots(grid, heads.keys, seen.shape[1]) + before + look.sizes[0]
        taken.append(_heads(tokens, 0, heads.queries, heads.all))
        taken.append(_heads(seen, heads.queries, heads.keys, heads.all))
        taken.append(_heads(seen, heads.queries + heads.keys, heads.keys, heads.all))
        asked.append(_heads(tokens, 0, heads.queries, heads.queries))
        given.append(of_query + asked_before)
        learned.append(torch.cat([of_query + before, of_key, of_key + look.sizes[1]], 1))
        each.append(look)
    padding = batch.tokens.computed - batch.own.stop
    given.append(given[0].new_zeros(padding, heads.queries))
    learned.append(learned[0].new_full((padding, heads.all), _count(taken)))
    return Looks(
        heads, tuple(each), _flat(taken), _flat(asked), _flat(given), _flat(learned), begins_with=batch.begins_with
    )


def _sides(batch: Batch) -> Iterator[tuple[Grid, torch.Tensor, torch.Tensor]]:
    """Each grid, the tokens that ask there, rows x longest, and those that they see, rows x n: the last are they."""
    own = _tokens(batch.own)
    if batch.beginnings is None:
        yield batch.own, own, own
    else:
        beginnings = _tokens(batch.beginnings)
        yield batch.beginnings, beginnings, beginnings
        yield batch.own, own, torch.cat([beginnings.index_select(0, batch.begins_with), own], 1)


def _flat(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([part.flatten() for part in parts])


def _count(parts: list[torch.Tensor]) -> int:
    return sum(part.numel() for part in parts)


def _tokens(grid: Grid) -> torch.Tensor:
    """rows x longest: which token of the line stands there; the grid's first where there is none."""
    line = torch.arange(grid.start, grid.stop, device=grid.place.device)
    return line.new_full((grid.rows * grid.longest,), grid.start).index_copy_(0, grid.place, line).view(grid.rows, -1)


def _heads(tokens: torch.Tensor, first: int, count: int, width: int) -> torch.Tensor:
    """rows x count x n: the tokens' heads from `first` on, of `width` each."""
    return tokens.unsqueeze(1) * width + torch.arange(first, first + count, device=tokens.device).unsqueeze(1)


def _slots(grid: Grid, heads: int, wide: int) -> torch.Tensor:
    """tokens x heads: where among rows x heads x wide each token's head stands, the row's at its end."""
    row, at = grid.place // grid.longest, grid.place % grid.longest + wide - grid.longest
    return (row.unsqueeze(1) * heads + torch.arange(heads, device=row.device)) * wide + at.unsqueeze(1)


def _look(batch: Batch, grid: Grid, seen: int, heads: Heads, like: torch.Tensor) -> Look:
    groups = heads.queries // heads.keys
    itself = _itself(grid.longest, heads.window, like).repeat(groups, 1)
    hidden = itself[None] if seen == grid.longest else _begun(batch, heads, itself)
    real = like.new_zeros(grid.rows * grid.longest).index_fill_(0, grid.place, 1.0).view(grid.rows, 1, 1, -1)
    spread = real.expand(-1, heads.keys, groups, -1).reshape(grid.rows * heads.keys, -1, 1)
    return Look(grid.rows * heads.keys, groups * grid.longest, seen, hidden, spread)


def _begun(batch: Batch, heads: Heads, itself: torch.Tensor) -> torch.Tensor:
    """B x asking x seen: `itself` behind where a query may look in its row's beginning."""
    assert batch.beginnings is not None
    begun = batch.begun[:, None, None]
    places = torch.arange(batch.beginnings.longest, device=itself.device)
    asking = torch.arange(len(itself), device=itself.device)[:, None] % batch.own.longest
    banned = (places >= begun).expand(-1, len(itself), -1)
    if heads.window is not None:
        banned = banned | (places <= begun + asking - heads.window)
    begin = itself.new_zeros(banned.shape).masked_fill_(banned, float("-inf"))
    return torch.cat([begin, itself.expand(batch.rows, -1, -1)], 2).repeat_interleave(heads.keys, 0)


def _itself(longest: int, window: int | None, like: torch.Tensor) -> torch.Tensor:
    """longest x longest: minus infinity where a query may not look."""
    ones = torch.ones(longest, longest, dtype=torch.bool, device=like.device)
    banned = ones.triu(1)
    if window is not None and window < longest:
        banned = banned | ones.tril(-window)
    return like.new_zeros(longest, longest).masked_fill(banned, float("-inf"))
