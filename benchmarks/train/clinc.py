"""CLINC150: a base that knows five domains learns travel (15 intents, 100 examples each) and should not forget."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import median

from rich.table import Table

from benchmarks.clinc import make_base, read
from demo.corpus import Example

HELDOUT = 0.1


def compare(data: Path, cache: Path, rounds: int, seed: int) -> Table:
    """Each round is a process and a seed of its own; shares are of the test split's greedy replies."""
    cache.mkdir(parents=True, exist_ok=True)
    make_base(cache / "clinc150", read(data), lambda share, line: None)
    table = Table("", "seconds", "travel", "five domains", title=f"CLINC150, {rounds} rounds, medians")
    for name in ("ours", "new rows only, 60 s"):
        found = [_run(name, data, cache, seed + number) for number in range(rounds)]
        seconds, novel, before, after = (median(values) for values in zip(*found, strict=True))
        table.add_row(name, f"{seconds:.0f}", f"{novel:.1%}", f"{before:.1%} → {after:.1%}")
    return table


def _run(name: str, data: Path, cache: Path, seed: int) -> list[float]:
    command = [sys.executable, "-m", "benchmarks.train.clinc", name, str(data), str(cache), str(seed)]
    done = subprocess.run(
        command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, stdout=subprocess.PIPE, text=True, check=True
    )
    print(f"clinc, {name}: {done.stdout.splitlines()[-1]}", file=sys.stderr, flush=True)
    return [float(value) for value in done.stdout.splitlines()[-1].split()]


def main() -> None:
    """One training: prints its seconds and the shares of right replies: on travel, on the old domains before, after."""
    from benchmarks.train.arms import SPIN, THREADS
    from retrain_jobs.base import Base, load_base, prepare_process

    name, data, cache, seed = sys.argv[1:]
    prepare_process(THREADS, 0, SPIN)
    from retrain_jobs.candidate import read_config
    from retrain_jobs.encode import Encoded, encode
    from retrain_jobs.generate import greedy
    from retrain_jobs.recipes import sft_lora
    from retrain_jobs.recipes.objective import Likelihood
    from service.settings import Recipe, RetrainSettings

    config = read_config(Recipe.SFT_LORA)
    base = load_base(str(Path(cache) / "clinc150"), threads=THREADS, max_length=config.max_length)
    clinc = read(Path(data))
    rng = Random(int(seed))
    new = list(clinc.novel["train"])
    replay = [] if name != "ours" else rng.sample(list(clinc.taught["train"]), 2 * len(new))

    def tokens(examples: Sequence[Example]) -> list[Encoded]:
        return [row for e in examples if (row := encode(base, list(e.messages), e.target)) is not None]

    def right(model: object, base: Base, examples: Sequence[Example]) -> float:
        replies = greedy(model, base, [row.prompt for row in tokens(examples)], max_new_tokens=24)
        texts = [base.tokenizer.decode(reply.ids, skip_special_tokens=True).strip() for reply in replies]
        same = [bool(text == example.target) for text, example in zip(texts, examples, strict=True)]
        return sum(same) / len(same)

    before = right(base.model, base, clinc.taught["test"])
    rows = tokens([*new, *replay])
    rng.shuffle(rows)
    cut = round(HELDOUT * len(rows))
    limit = 115.0 if name == "ours" else 60.0
    knobs = RetrainSettings(rank=16, alpha=32, epochs=8, dropout=0.0, max_seconds=limit, seed=int(seed))
    began = time.monotonic()
    goal = Likelihood(rows[cut:])
    model, _ = sft_lora.train(base, goal, rows[:cut], knobs, config, Path(cache), lambda share, detail: None)
    seconds = time.monotonic() - began
    print(seconds, right(model, base, clinc.novel["test"]), before, right(model, base, clinc.taught["test"]))


if __name__ == "__main__":
    main()
