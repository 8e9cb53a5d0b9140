"""How well drift's reasons name what is new: `python -m benchmarks.reasons [--seeds 200]`, on CLINC150.

A reference of 500 requests of five domains; a window of 200, whose second half holds a share of travel. Embeddings are
those of the base model that `python -m benchmarks clinc` trains. A topic is right where most of it is travel.
"""

from __future__ import annotations

import argparse
import math
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

from benchmarks import clinc
from service.monitor.embedders import Embedder, build_embedder
from service.monitor.neighbours import Neighbours
from service.monitor.topics import Topic, Window, find_topics
from service.settings import Settings

REFERENCE, WINDOW, ONSET = 500, 200, 100
SHARES = (0.0, 0.1, 0.2, 0.5)


@dataclass(slots=True)
class Row:
    """What was found over the seeds at one share of travel."""

    share: float
    any_topic: int = 0
    right: int = 0
    precision: list[float] = field(default_factory=list)
    recall: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    words: Counter[str] = field(default_factory=Counter)

    def note(self, topics: tuple[Topic, ...], is_novel: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> None:
        self.any_topic += bool(topics)
        right = [topic for topic in topics if is_novel[topic.members].mean() > 0.5]
        if not right:
            return
        self.right += 1
        members = np.any([topic.members for topic in right], axis=0)
        self.precision.append(float(is_novel[members].mean()))
        self.recall.append(float(members[is_novel].mean()))
        self.shares.append(sum(topic.share for topic in right))
        self.late.append(right[0].began - ONSET)
        self.words.update(right[0].words)


def play(row: Row, seeds: int, known: list[str], novel: list[str], embedder: Embedder) -> None:
    for seed in range(seeds):
        random = Random(seed)
        drawn = random.sample(known, REFERENCE + WINDOW)
        reference, current = drawn[:REFERENCE], drawn[REFERENCE:]
        is_novel = np.array([i >= ONSET and random.random() < row.share for i in range(WINDOW)])
        current = [random.choice(novel) if new else text for text, new in zip(current, is_novel, strict=True)]
        space = Neighbours(embedder.embed(reference))
        seen = Window(current, space.directions(embedder.embed(current)))
        row.note(find_topics(Window(reference, space.known), seen, seed=0), is_novel)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/clinc150"))
    parser.add_argument("--cache", type=Path, default=Path(os.environ.get("TRIMTAB_CACHE", ".cache/trimtab")))
    options = parser.parse_args()
    texts = clinc.read(options.data)
    model = options.cache / "clinc150"
    clinc.make_base(model, texts, lambda share, line: None)
    embedder = build_embedder(Settings(model=str(model), state_dir=options.cache / "reasons"))
    if embedder is None:
        raise SystemExit(f"error: {model} has no embeddings that can be read")
    known = [example.text for split in texts.taught.values() for example in split]
    novel = [example.text for split in texts.novel.values() for example in split]
    table = Table("travel since the onset", "any topic", "the right one", "share told", "precision", "recall",
                  "onset off by (median, 90%)", "words")  # fmt: skip
    with threadpool_limits(1):
        for share in SHARES:
            row = Row(share)
            play(row, options.seeds, known, novel, embedder)
            table.add_row(*_cells(row, options.seeds))
    console = Console(width=170)
    console.print(f"{options.seeds} seeds (0 to {options.seeds - 1}); ± is the 95% interval of a share")
    console.print(table)
    return 0


def _cells(row: Row, seeds: int) -> list[str]:
    def of_seeds(n: int) -> str:
        mean = n / seeds
        return f"{mean:.1%} ± {196 * math.sqrt(mean * (1 - mean) / seeds):.1f}"

    if not row.right:
        return [f"{row.share:.0%}", of_seeds(row.any_topic), of_seeds(row.right), "", "", "", "", ""]
    off = np.abs(row.late)
    means = (f"{float(np.mean(found)):.0%}" for found in (row.shares, row.precision, row.recall))
    words = ", ".join(word for word, _ in row.words.most_common(6))
    return [
        f"{row.share:.0%}", of_seeds(row.any_topic), of_seeds(row.right), *means,
        f"{np.median(off):.0f}, {np.quantile(off, 0.9):.0f} requests", words,
    ]  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
