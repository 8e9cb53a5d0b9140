"""The loop on text that no one here wrote: CLINC150 (Larson et al., EMNLP 2019), `python -m benchmarks.clinc`.

The base model learns the intents of five domains; then customers begin to ask about travel.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import httpx
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedTokenizerFast

from demo import training
from demo.corpus import Example, Task
from demo.lessons import batched, encode
from demo.player import Ask, Player
from demo.screen import show_report
from demo.stage import ALIAS, running, write_stage
from demo.story import Plot, Progress, tell
from demo.tokenizer import train_tokenizer
from retrain_jobs.encode import Encoded

TAUGHT = ("banking", "credit_cards", "kitchen_and_dining", "home", "auto_and_commute")
NOVEL = "travel"
SECONDS = 115.0
DROPPED = 0.15
"""Chance that training leaves out a word of a request: real text is too little to be read as often as it is."""

GOLDEN_SIZE = 300
PLOT = Plot(ALIAS, reference_size=300, current_size=100, judged=300, novel_ratio=0.6, patience_s=400.0)
SIZES = {
    "retrain": {"rank": 16, "alpha": 32, "min_new_examples": 1200, "max_seconds": 200.0, "epochs": 6, "dropout": 0.05},
    "promotion": {"min_pairs": 40, "watch_s": 600.0, "cooldown_s": 5.0, "golden_margin": 0.03},
}


@dataclass(frozen=True, slots=True)
class Clinc:
    """Requests with their intents by split (`train`, `val`, `test`), of the taught domains and of travel."""

    taught: Mapping[str, Sequence[Example]]
    novel: Mapping[str, Sequence[Example]]


def read(folder: Path) -> Clinc:
    """Read `data_full.json` and `domains.json`. Raises SystemExit with the source when they are not there."""
    try:
        data = json.loads((folder / "data_full.json").read_text("utf-8"))
        domains = json.loads((folder / "domains.json").read_text("utf-8"))
    except FileNotFoundError as error:
        raise SystemExit(
            f"error: {error.filename} is missing; take it from github.com/clinc/oos-eval, data/"
        ) from error

    def of(intents: set[str]) -> dict[str, list[Example]]:
        return {
            split: [Example(Task.INTENT, intent, text, intent) for text, intent in data[split] if intent in intents]
            for split in ("train", "val", "test")
        }

    return Clinc(of({intent for domain in TAUGHT for intent in domains[domain]}), of(set(domains[NOVEL])))


def make_base(directory: Path, clinc: Clinc, progress: training.Progress) -> None:
    """Train a base model on the taught domains into `directory`, unless it is there."""
    if directory.exists():
        return
    recipe = training.Recipe(steps=100_000)
    texts = (text for example in clinc.taught["train"] for text in (example.text, example.target))
    tokenizer = train_tokenizer(texts, recipe.vocabulary)
    model = training.train(recipe, tokenizer, SECONDS, progress, _lessons(clinc.taught["train"]))
    draft = directory.with_name(f".{directory.name}")
    shutil.rmtree(draft, ignore_errors=True)
    model.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    draft.rename(directory)


def customers(clinc: Clinc) -> Callable[[Random, float], Ask]:
    """Customers who bring requests of the training split."""

    def draw(rng: Random, novel_ratio: float) -> Ask:
        novel = rng.random() < novel_ratio
        return ask(rng.choice((clinc.novel if novel else clinc.taught)["train"]), novel=novel)

    return draw


def ask(example: Example, *, novel: bool) -> Ask:
    return Ask(example.messages, example.target, novel)


def _lessons(examples: Sequence[Example]) -> training.Lessons:
    def batches(tokenizer: PreTrainedTokenizerFast, tokens: int, done: Callable[[], float]) -> Iterator[list[Encoded]]:
        rng = Random(0)
        while True:
            yield from batched(encode(tokenizer, [_thinned(example, rng) for example in examples]), tokens, rng)

    return batches


def _thinned(example: Example, rng: Random) -> Example:
    words = example.text.split()
    kept = [word for word in words if rng.random() >= DROPPED] or words
    return Example(example.task, example.intent, " ".join(kept), example.target)


async def right_share(url: str, model: str, examples: Sequence[Example]) -> float:
    """Share (0..1) of greedy replies that equal the intent, a few requests at a time."""
    gate = asyncio.Semaphore(8)

    async def one(http: httpx.AsyncClient, example: Example) -> bool:
        body = {"model": model, "messages": list(example.messages), "temperature": 0, "max_tokens": 24}
        async with gate:
            answer = (await http.post("/v1/chat/completions", json=body)).raise_for_status().json()
        return bool(answer["choices"][0]["message"]["content"].strip() == example.target)

    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60.0) as http:
        found = await asyncio.gather(*(one(http, example) for example in examples))
    return sum(found) / len(found)


async def play(clinc: Clinc, model: Path, folder: Path, port: int) -> None:
    """Run the loop and print what it did to both kinds of test requests."""
    rng = Random(5)
    golden = [ask(example, novel=False) for example in rng.sample(list(clinc.taught["val"]), GOLDEN_SIZE)]
    config = write_stage(folder, model, golden, port=port, sizes=SIZES)
    url = f"http://127.0.0.1:{port}"
    async with running(config, url):
        player = Player(url, ALIAS, customers(clinc), rate=10.0, feedback_ratio=0.9, max_tokens=24, seed=3)
        stop, progress = asyncio.Event(), Progress()
        playing = asyncio.create_task(player.play(stop))
        try:
            outcome = await tell(PLOT, player, url, progress)
        finally:
            stop.set()
            await playing
        console = Console()
        show_report(console, outcome, url)
        old, new = clinc.taught["test"], clinc.novel["test"]
        table = Table("test requests", "n", "base model", "promoted adapter", title=f"CLINC150, travel after {TAUGHT}")
        for name, examples in (("five taught domains", old), ("travel", new)):
            shares = [await right_share(url, system, examples) for system in (model.name, ALIAS)]
            table.add_row(name, str(len(examples)), *(f"{share:.1%}" for share in shares))
        console.print(table)
        console.print("targets: travel at least 75%, and at most 3 points lost on the taught domains.")
        console.print("The report's quality is that of customers, who bring requests that the base was trained on.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/clinc150"), help="folder of the dataset")
    parser.add_argument("--cache", type=Path, default=Path(".cache/trimtab"), help="where the base model is kept")
    parser.add_argument("--folder", type=Path, default=Path(".trimtab/clinc"), help="where the service keeps its state")
    parser.add_argument("--port", type=int, default=18300, help="the service's port; the next two are used as well")
    options = parser.parse_args()
    clinc = read(options.data)
    options.cache.mkdir(parents=True, exist_ok=True)
    model = options.cache / "clinc150"
    make_base(model, clinc, lambda share, line: None)
    asyncio.run(play(clinc, model, options.folder, options.port))


if __name__ == "__main__":
    main()
