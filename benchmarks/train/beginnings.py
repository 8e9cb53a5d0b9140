"""What a beginning that all rows share saves: the same steps with it computed once and computed for each row.

`python -m benchmarks.train --row beginnings`; both in turns in one process, on the model of 5 million parameters.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from rich.table import Table

from benchmarks.train.arms import ALPHA, BATCH, MAX_LENGTH, RANK, SPIN, THREADS
from benchmarks.train.task import SHAPES, read_rows, write_task
from retrain_jobs.base import load_base, prepare_process

WORDS = (0, 2, 20, 80, 200)
"""Of a system prompt."""

STEPS = 24
WARM_UP = 4


def compare(seed: int) -> Table:
    """Medians over the steps."""
    prepare_process(THREADS, 0, SPIN)
    table = Table(
        "tokens that rows share", "ms a step, each row's own", "shared", "times", title="5M: a system prompt, 16 rows"
    )
    for words in WORDS:
        with TemporaryDirectory() as folder:
            write_task(Path(folder), SHAPES["5M"], rows=200, seed=seed, system=words)
            shared, apart_s, together_s = _steps(Path(folder), seed)
        ratio = median(one / other for one, other in zip(together_s, apart_s, strict=True))
        table.add_row(f"{shared}", f"{1e3 * median(apart_s):.0f}", f"{1e3 * median(together_s):.0f}", f"{ratio:.2f}x")
    return table


def _steps(folder: Path, seed: int) -> tuple[int, list[float], list[float]]:
    """How many tokens the rows begin with alike, and the seconds of each step, apart and shared."""
    import torch
    from peft import get_peft_model

    from retrain_jobs.candidate import read_config
    from retrain_jobs.encode import encode
    from retrain_jobs.recipes import sft_lora
    from retrain_jobs.recipes.flat import FlatAdamW
    from retrain_jobs.recipes.lean import lean
    from retrain_jobs.recipes.objective import Likelihood
    from retrain_jobs.recipes.order import batches
    from retrain_jobs.recipes.packing import packing
    from service.settings import Recipe, RetrainSettings

    base = load_base(str(folder / "model"), threads=THREADS, max_length=MAX_LENGTH)
    rows = [row for asked, reply in read_rows(folder, "train") if (row := encode(base, asked, reply)) is not None]
    together, apart = Likelihood(rows), Likelihood(rows)
    apart.rows, apart.lengths = rows, [len(row) for row in rows]
    config = read_config(Recipe.SFT_LORA)
    torch.manual_seed(seed)
    model = get_peft_model(base.model, sft_lora.lora(RetrainSettings(rank=RANK, alpha=ALPHA), config))
    optimizer = FlatAdamW(
        [weight for weight in model.parameters() if weight.requires_grad], base.model.dtype, beta2=config.adam_beta2,
        weight_decay=config.weight_decay, max_norm=config.max_grad_norm,
    )  # fmt: skip
    order = [
        batch for epoch in range(4) for batch in batches(apart.lengths, BATCH, seed=seed, epoch=epoch)
    ][: WARM_UP + STEPS]  # fmt: skip
    spent: dict[int, list[float]] = {id(together): [], id(apart): []}
    with packing(base.model), lean(model):
        model.train()
        for number, batch in enumerate(order):
            for goal in (together, apart) if number % 2 else (apart, together):
                began = time.perf_counter()
                _step(model, optimizer, goal, batch, config.max_tokens)
                spent[id(goal)].append(time.perf_counter() - began)
    shared = max(row.shared for row in together.rows)
    return shared, spent[id(apart)][WARM_UP:], spent[id(together)][WARM_UP:]


def _step(model: Any, optimizer: Any, goal: Any, batch: Sequence[int], max_tokens: int) -> None:
    from retrain_jobs.recipes.order import within

    for part in within(batch, goal.lengths, max_tokens):
        loss, _ = goal.loss(model, part)
        (loss / len(batch)).backward()
    optimizer.step(1e-4)
