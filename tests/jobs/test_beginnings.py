"""What rows begin with alike is computed once, and nothing else changes: losses, gradients, what a part may hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

torch = pytest.importorskip("torch")

from peft import LoraConfig, get_peft_model  # noqa: E402

from retrain_jobs.base import load_base  # noqa: E402
from retrain_jobs.candidate import read_config  # noqa: E402
from retrain_jobs.encode import Encoded  # noqa: E402
from retrain_jobs.recipes import sft_lora  # noqa: E402
from retrain_jobs.recipes.attention import attend  # noqa: E402
from retrain_jobs.recipes.beginnings import WORTH, sharing  # noqa: E402
from retrain_jobs.recipes.forced import forced  # noqa: E402
from retrain_jobs.recipes.lean import lean  # noqa: E402
from retrain_jobs.recipes.objective import Likelihood  # noqa: E402
from retrain_jobs.recipes.packed import STEP, Batch, Tokens, pack, row_losses, target_logits  # noqa: E402
from retrain_jobs.recipes.packing import packing  # noqa: E402
from service.settings import Recipe, RetrainSettings  # noqa: E402

DESK, SHOP = tuple(range(5, 45)), tuple(range(105, 135))


def rows_of(system: tuple[int, ...], count: int, seed: int = 0) -> list[Encoded]:
    rng = Random(seed)
    return [
        Encoded((*system, *rng.choices(range(200, 260), k=rng.randint(1, 9))), (rng.randrange(60), 2))
        for _ in range(count)
    ]


def test_a_system_prompt_is_shared_by_all_that_have_it() -> None:
    rows = rows_of(DESK, 30)
    assert {row.shared for row in sharing(rows)} == {len(DESK)}
    assert [replace(row, shared=0) for row in sharing(rows)] == rows


def test_each_task_has_its_own_beginning_and_an_odd_row_none() -> None:
    rows = [*rows_of(DESK, 20), Encoded((1, 2, 3), (4,)), *rows_of(SHOP, 20, seed=1)]
    assert [row.shared for row in sharing(rows)] == [len(DESK)] * 20 + [0] + [len(SHOP)] * 20


def test_few_rows_that_have_a_little_more_in_common_stay_with_the_others() -> None:
    rows = rows_of(DESK, 95) + rows_of((*DESK, 300, 301, 302), 5)
    assert {row.shared for row in sharing(rows)} == {len(DESK)}


def test_two_versions_of_a_long_prompt_are_not_cut_down_to_what_both_have() -> None:
    old, new = (*DESK, 300, *SHOP), (*DESK, 301, *SHOP)
    assert [row.shared for row in sharing(rows_of(old, 20) + rows_of(new, 20))] == [len(old)] * 20 + [len(new)] * 20


def test_what_would_spare_little_is_left_as_it_is() -> None:
    short = tuple(range(5, 5 + int(WORTH) // 16))
    assert {row.shared for row in sharing(rows_of(short, 40))} == {0}
    assert sharing([]) == []
    assert sharing(rows_of(DESK, 1))[0].shared == 0


def test_the_last_token_of_a_prompt_is_its_rows_own() -> None:
    """It predicts the target's first."""
    assert {row.shared for row in sharing([Encoded(DESK, (1, 2))] * 20)} == {len(DESK) - 1}


def test_rows_share_only_what_they_have_in_common() -> None:
    rng = Random(1)
    for _ in range(50):
        heads = [tuple(rng.choices((5, 6), k=rng.randint(1, 60))) for _ in range(4)]
        rows = [row for head in heads for row in rows_of(head, rng.randint(1, 15), seed=rng.randrange(99))]
        found = sharing(rows)
        for row in found:
            assert row.shared < len(row.prompt)
            others = [other for other in found if other.prompt[: other.shared] == row.prompt[: row.shared]]
            assert row.shared == 0 or len(others) > 1


def test_losses_and_gradients_are_those_of_rows_by_themselves(tiny_base: Path) -> None:
    base = load_base(str(tiny_base), threads=1, max_length=128)
    model = get_peft_model(base.model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.double()
    torch.manual_seed(1)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    with torch.no_grad():
        for weight in weights:
            weight.normal_(0, 0.1)
    rows = [*rows_of(DESK, 6), *rows_of((), 2), *rows_of(SHOP, 5)]
    rows = [Encoded(tuple(token % 60 for token in row.prompt), row.target) for row in rows]
    shared = sharing(rows)
    assert {row.shared for row in shared} == {len(DESK), 0, len(SHOP)}

    def computed(rows: list[Encoded]) -> tuple[Tokens, list[torch.Tensor]]:
        model.zero_grad()
        batch = pack(rows, base.model.device)
        with packing(base.model), lean(model):
            losses = row_losses(target_logits(model, batch), batch)
        losses.sum().backward()
        return batch.tokens, [losses.detach(), *(weight.grad.clone() for weight in weights)]

    tokens, own = computed(rows)
    fewer, found = computed(shared)
    assert tokens.used - fewer.used == 5 * len(DESK) + 4 * len(SHOP)
    assert fewer.computed - fewer.used < STEP
    assert all((one != 0).any() for one in own)
    torch.testing.assert_close(found, own, rtol=1e-4, atol=1e-6)


def test_targets_are_judged_alike(tiny_base: Path) -> None:
    base = load_base(str(tiny_base), threads=1, max_length=128)
    base.model.double()
    rows = [Encoded(tuple(t % 60 for t in row.prompt), row.target) for row in rows_of(DESK, 20)]
    with packing(base.model):
        found = forced(base.model, rows, 64)
    for row, one in zip(rows, found, strict=True):
        data = {name: torch.tensor([ids]) for name, ids in row.row().items()}
        with torch.no_grad():
            assert one.loss == pytest.approx(base.model(**data).loss.item() * len(row.target), rel=1e-5)


@pytest.mark.parametrize("window", [None, 3, 7, 50])
def test_a_window_reaches_back_into_the_beginning_and_no_further(window: int | None) -> None:
    rows = [
        Encoded((1, 2, 3, 4, 5, 6), (7, 8), shared=5),
        Encoded((1, 2, 3, 4, 5, 9, 9, 9), (7,), shared=5),
        Encoded((1, 2), (3,)),
        Encoded((4, 4, 4, 9), (7,), shared=3),
    ]
    batch = pack(rows, torch.device("cpu"))
    torch.manual_seed(0)
    line = [torch.randn(1, heads, batch.tokens.computed, 4) for heads in (4, 2, 2)]
    out, _ = attend(torch.nn.Identity(), *line, None, scaling=0.5, batch=batch, sliding_window=window)
    for row, places in zip(rows, places_of(rows, batch), strict=True):
        seen = torch.ones(len(row), len(row), dtype=torch.bool).tril()
        if window is not None:
            seen &= ~torch.ones_like(seen).tril(-window)
        query, key, value = (one[:, :, places] for one in line)
        alone = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, seen, scale=0.5, enable_gqa=True
        ).transpose(1, 2)
        torch.testing.assert_close(out[:, places], alone)


def places_of(rows: list[Encoded], batch: Batch) -> list[list[int]]:
    """Where in the line each row's tokens stand."""
    found = []
    beginnings: dict[tuple[int, ...], int] = {}
    for row in rows:
        beginning = row.prompt[: row.shared]
        if beginning not in beginnings:
            beginnings[beginning] = sum(map(len, beginnings))
    start = batch.own.start
    for row in rows:
        first = beginnings[row.prompt[: row.shared]]
        found.append([*range(first, first + row.shared), *range(start, start + row.own)])
        start += row.own
    return found


def test_memory_is_asked_for_the_beginning_once(tiny_base: Path) -> None:
    base = load_base(str(tiny_base), threads=1, max_length=128)
    knobs, config = RetrainSettings(batch_size=16), read_config(Recipe.SFT_LORA)
    rows = [Encoded(tuple(t % 60 for t in row.prompt), row.target) for row in rows_of(DESK + SHOP, 20)]
    goal = Likelihood(rows)
    assert goal.lengths == [len(row) - len(DESK + SHOP) for row in rows]
    apart = Likelihood(rows)
    apart.rows, apart.lengths = rows, [len(row) for row in rows]
    need, more = (sft_lora._need(base, 1000, one, knobs, config).memory for one in (goal, apart))
    assert need < 0.6 * more


def test_no_other_way_to_share_spares_much_more() -> None:
    """Rows outside of a group within another one could be a group by themselves."""
    rng = Random(2)
    for _ in range(30):
        heads = [tuple(rng.choices((5, 6), k=rng.randint(20, 80))) for _ in range(2)]
        heads += [head[: rng.randint(5, len(head))] + SHOP for head in heads]
        rows = [row for head in heads for row in rows_of(head, rng.randint(1, 12))]
        assert spared(sharing(rows)) >= 0.95 * most_spared(rows) > 0


def spared(rows: list[Encoded]) -> float:
    beginnings = {row.prompt[: row.shared] for row in rows}
    return sum(
        gain(len(one), sum(row.prompt[: row.shared] == one for row in rows), len(rows)) for one in beginnings if one
    )


def gain(length: int, group: int, rows: int) -> float:
    share = group / rows
    return length * (16 * share - 1 + (1 - share) ** 16)


def most_spared(rows: list[Encoded]) -> float:
    """Of all cuts of the sorted prompts into groups."""
    prompts = sorted(row.prompt[:-1] for row in rows)
    best = [0.0]
    for stop in range(1, len(prompts) + 1):
        ways = [best[-1]]
        for start in range(stop):
            first, last = prompts[start], prompts[stop - 1]
            alike = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
            found = gain(min(alike, len(last)), stop - start, len(prompts))
            ways.append(best[start] + (found if found >= WORTH else 0.0))
        best.append(max(ways))
    return best[-1]
