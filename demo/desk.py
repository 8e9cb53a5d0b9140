"""The support desk's customers, drawn one by one, and its golden set."""

from __future__ import annotations

import random

from demo.corpus import NOVEL, TASK_SHARES, TAUGHT, Example, Split, Task, example, taught
from demo.player import Ask

GOLDEN_SIZE = 300

TRAVEL_DESK = tuple(
    intent
    for intent in NOVEL
    if intent.name in {"flight_book", "baggage_lost", "travel_insurance", "visa_needed", "lounge_access"}
)
"""What customers ask about when the shop begins to sell journeys."""


def support_desk(draw: random.Random, novel_ratio: float) -> Ask:
    """The next customer: with chance `novel_ratio` one who asks about what the base model never learned.

    Customers use the phrasings of training in ever new combinations of wording, values and typos.
    """
    if draw.random() < novel_ratio:
        return _ask(example(draw.choice(TRAVEL_DESK), Task.INTENT, Split.TRAIN, draw), novel=True)
    task = draw.choices(tuple(TASK_SHARES), tuple(TASK_SHARES.values()))[0]
    return _ask(example(draw.choice(TAUGHT), task, Split.TRAIN, draw), novel=False)


def golden_set(seed: int) -> list[Ask]:
    """Examples of everything that was taught, from a seed that no customer shares."""
    return [_ask(e, novel=False) for e in taught(f"golden/{seed}", GOLDEN_SIZE, Split.TRAIN)]


def _ask(drawn: Example, *, novel: bool) -> Ask:
    return Ask(drawn.messages, drawn.target, novel)
