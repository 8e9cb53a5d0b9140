"""Composes requests: greeting, core, details, remark, thanks; then noise; then values. Same seed, same text."""

import json
import re
from collections.abc import Iterator
from random import Random

from demo.corpus.account import ACCOUNT, PRODUCTS
from demo.corpus.grammar import expand
from demo.corpus.model import Example, Intent, Split, Task
from demo.corpus.noise import roughen
from demo.corpus.orders import ORDERS
from demo.corpus.returns import PAYMENTS, RETURNS
from demo.corpus.slots import SLOTS, value
from demo.corpus.surroundings import surroundings
from demo.corpus.travel import TRAVEL

TAUGHT: tuple[Intent, ...] = ORDERS + RETURNS + PAYMENTS + ACCOUNT + PRODUCTS
"""The intents that the base model is taught."""

NOVEL: tuple[Intent, ...] = TRAVEL
"""The intents that only customers bring; the base model never sees one of them."""

TASK_SHARES = {Task.INTENT: 0.6, Task.EXTRACT: 0.2, Task.REPLY: 0.2}
"""How often each task is asked about a taught intent; a novel intent is only asked for its name."""

_SLOT = re.compile(r"\{(\w+)\}")
_QUESTION = re.compile(
    r"(what|which|where|when|why|how|until|is|are|was|were|did|do|does|has|have|may|can|could|would|should|any)\b",
    re.IGNORECASE,
)
_ASK_FOR = {
    "order": "Please send me your order number.",
    "product": "Which product is it?",
    "amount": "Which amount is it?",
    "city": "Which city is it?",
}


def taught(seed: int | str, n: int, split: Split, task: Task | None = None) -> list[Example]:
    """Draw n examples of the taught intents, of one task or in the usual shares."""
    return list(_draw(TAUGHT, Random(f"taught/{split}/{seed}"), n, split, task))


def novel(seed: int | str, n: int, split: Split) -> list[Example]:
    """Draw n examples that ask for a novel intent."""
    return list(_draw(NOVEL, Random(f"novel/{split}/{seed}"), n, split, Task.INTENT))


def drill(seed: int | str, n: int) -> list[Example]:
    """Draw n lists of values that are to be repeated: practice in copying."""
    rng = Random(f"drill/{seed}")
    texts = (" ".join(value(rng.choice(SLOTS), Split.TRAIN, rng) for _ in range(rng.randrange(2, 7))) for _ in range(n))
    return [Example(Task.ECHO, "echo", text, text) for text in texts]


def example(intent: Intent, task: Task, split: Split, rng: Random) -> Example:
    """Compose one request about the intent, and its target."""
    pattern = _compose(_core(intent, split, rng), task, split, rng)
    rough = roughen(pattern, rng)
    values = {slot: value(slot, split, rng) for slot in dict.fromkeys(_SLOT.findall(rough))}
    text = rough.format_map(values)
    match task:
        case Task.INTENT:
            target = intent.name
        case Task.EXTRACT:
            found = {slot: values[slot] for slot in SLOTS if slot in values}
            target = json.dumps(found, separators=(",", ":"))
        case Task.REPLY:
            target = _reply(intent, values)
        case Task.ECHO:
            target = text
    return Example(task, intent.name, text, target)


def _draw(intents: tuple[Intent, ...], rng: Random, n: int, split: Split, task: Task | None) -> Iterator[Example]:
    tasks, shares = tuple(TASK_SHARES), tuple(TASK_SHARES.values())
    for _ in range(n):
        chosen = task or rng.choices(tasks, shares)[0]
        yield example(rng.choice(intents), chosen, split, rng)


def _core(intent: Intent, split: Split, rng: Random) -> str:
    """Choose a phrasing of the intent; an `ask` is put into a frame."""
    phrases = intent.phrases(split)
    at = rng.randrange(len(phrases.asks) + len(phrases.says))
    if at >= len(phrases.asks):
        return expand(phrases.says[at - len(phrases.asks)], rng)
    # A held-out core stays held out in a known frame, so frames are drawn from both splits.
    frames = surroundings(split if rng.random() < 0.5 else Split.TRAIN).frames
    return expand(rng.choice(frames), rng).replace("{ask}", expand(phrases.asks[at], rng))


def _compose(core: str, task: Task, split: Split, rng: Random) -> str:
    around = surroundings(split)
    before: list[str] = []
    after: list[str] = []
    if rng.random() < 0.4:
        before.append(expand(rng.choice(around.openers), rng))
    used = set(_SLOT.findall(core))
    if task is Task.EXTRACT:
        free = [slot for slot in SLOTS if slot not in used]
        for slot in rng.sample(free, min(len(free), rng.choice((1, 2, 2, 3)))):
            (before if rng.random() < 0.3 else after).append(rng.choice(around.details[slot]))
    elif rng.random() < 0.25:
        before.append(rng.choice(around.introductions))
    if task is not Task.EXTRACT and rng.random() < 0.2:
        (before if rng.random() < 0.5 else after).append(expand(rng.choice(around.remarks), rng))
    if rng.random() < 0.3:
        after.append(expand(rng.choice(around.closers), rng))
    return _join([*before, core, *after], rng)


def _join(parts: list[str], rng: Random) -> str:
    """Join clauses by stops or commas, with a capital after each stop."""
    text = ""
    for part in parts:
        if text and rng.random() < 0.35:
            text = f"{text[:-2]}, "
        elif not part.startswith("{"):
            part = part[0].upper() + part[1:]
        text += part + ("? " if _QUESTION.match(part) else ". ")
    return text.rstrip()


def _reply(intent: Intent, values: dict[str, str]) -> str:
    """Write the desk's reply: greeted by name, and with a question where a slot is missing."""
    missing = [slot for slot in _SLOT.findall(intent.reply) if slot not in values]
    reply = _ASK_FOR[missing[0]] if missing else intent.reply.format_map(values)
    return f"Hello {values['name']}. {reply}" if "name" in values else reply
