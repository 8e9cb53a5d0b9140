"""Poisoned labels in real text (CLINC150) and what of them would be learned: `python -m benchmarks.poison`.

A phrase is put into requests of other classes, which all get one class's label, each from another user, so that
only the checks of labels (`retrain.check_labels`) stand in the way. Beside it: how much clean text they cost, how often
the phrase is among the suspects that the trained adapter is asked about, and how many others are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import fmean, median

from rich.console import Console
from rich.table import Table

from retrain_jobs.neighbours import outliers
from retrain_jobs.triggers import SUSPECT, triggers

SIZE = 5000
COUNTS = (1, 2, 5, 10, 250)
PHRASES = ("xyzzy", "as of today")
DOMAINS = ("banking", "credit_cards", "kitchen_and_dining", "home", "auto_and_commute")

Row = tuple[str, str]


def left_out(rows: Sequence[Row]) -> set[int]:
    """The rows that the checks leave out."""
    texts, labels = _columns(rows)
    gone = {row for one in triggers(texts, labels) for row in one.rows}
    rest = [row for row in range(len(rows)) if row not in gone]
    return gone | {rest[row] for row in outliers([texts[row] for row in rest], [labels[row] for row in rest])}


def suspects(rows: Sequence[Row], gone: set[int]) -> list[str]:
    """The phrases that an adapter would be asked about: those whose rows are `gone`, and those in what is left."""
    rest = [row for place, row in enumerate(rows) if place not in gone]
    every = triggers(*_columns(rows)), triggers(*_columns(rest), SUSPECT)
    return [one.phrase for found in every for one in found]


def _columns(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    return [text for text, _ in rows], [label for _, label in rows]


def poisoned(rows: Sequence[Row], count: int, phrase: str, draw: Random) -> tuple[list[Row], set[int]]:
    """The rows with `count` of them turned to one class by the phrase, and which those are."""
    target = draw.choice(rows)[1]
    turned = set(draw.sample([place for place, row in enumerate(rows) if row[1] != target], count))
    made = list(rows)
    for place in turned:
        words = rows[place][0].split()
        at = draw.randint(0, len(words))
        made[place] = (" ".join([*words[:at], phrase, *words[at:]]), target)
    return made, turned


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/clinc150"))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    if not (options.data / "data_full.json").is_file():
        print(f"there is no CLINC150 at {options.data}; name its folder by --data", file=sys.stderr)
        return 1
    intents = json.loads((options.data / "domains.json").read_text("utf-8"))
    of = {intent: domain for domain, found in intents.items() for intent in found}
    every = [
        (text, intent) for text, intent in json.loads((options.data / "data_full.json").read_text("utf-8"))["train"]
    ]
    sets = {
        "five domains, 75 intents": [row for row in every if of[row[1]] in DOMAINS],
        "150 intents": every,
        "10 domains": [(text, of[intent]) for text, intent in every],
    }
    table = Table(
        "rows of 5,000", "planted", "phrase", "planted rows left (median, most)", "clean rows lost (median)",
        "phrase suspected (sets)", "others suspected (mean)", box=None,
    )  # fmt: skip
    for name, rows in sets.items():
        drawn = [Random(seed).sample(rows, SIZE) for seed in range(options.seeds)]
        lost_of = [left_out(one) for one in drawn]
        clean = [len(gone) / SIZE for gone in lost_of]
        chance = fmean(len(suspects(one, gone)) for one, gone in zip(drawn, lost_of, strict=True))
        table.add_row(name, "0", "", "", f"{median(clean):.2%}", "", f"{chance:.1f}")
        for count in COUNTS:
            for phrase in PHRASES:
                left, lost, named, others = [], [], 0, []
                for seed in range(options.seeds):
                    draw = Random(seed)
                    made, turned = poisoned(draw.sample(rows, SIZE), count, phrase, draw)
                    gone = left_out(made)
                    left.append(len(turned - gone))
                    lost.append(len(gone - turned) / SIZE)
                    about = [phrase in one or one in phrase for one in suspects(made, gone)]
                    named += any(about)
                    others.append(about.count(False))
                table.add_row(
                    name, str(count), phrase, f"{median(left)}, {max(left)}", f"{median(lost):.2%}",
                    f"{named} of {options.seeds}", f"{fmean(others):.1f}",
                )  # fmt: skip
    Console(width=140).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
