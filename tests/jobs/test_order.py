"""Which rows make up which step, and which are computed together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from retrain_jobs.recipes.order import batches, within
from tests.jobs.rows import calm

lengths = st.lists(st.integers(1, 50), min_size=1, max_size=80)


@calm
@given(lengths, st.integers(1, 9), st.integers(0, 5))
def test_an_epoch_has_every_row_once_in_full_batches(sizes: list[int], batch_size: int, epoch: int) -> None:
    found = batches(sizes, batch_size, seed=3, epoch=epoch)
    assert sorted(row for batch in found for row in batch) == list(range(len(sizes)))
    assert found == batches(sizes, batch_size, seed=3, epoch=epoch)
    assert len(found) == -(-len(sizes) // batch_size)


def test_epochs_and_seeds_differ() -> None:
    sizes = list(range(1, 60))
    kinds = [batches(sizes, 4, seed=seed, epoch=epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(one != other for n, one in enumerate(kinds) for other in kinds[:n])


@calm
@given(lengths, st.integers(1, 120))
def test_a_group_stays_within_the_tokens_or_is_one_row(sizes: list[int], tokens: int) -> None:
    rows = list(range(len(sizes)))
    groups = within(rows, sizes, tokens)
    assert [row for group in groups for row in group] == rows
    assert all(len(group) == 1 or len(group) * max(sizes[row] for row in group) <= tokens for group in groups)
