"""What the base model sees while it learns: endless fresh examples, in batches of like length."""

from collections.abc import Callable, Iterator, Sequence
from random import Random

from transformers import PreTrainedTokenizerFast

from demo.corpus import Example, Split, Task, drill, taught
from demo.tokenizer import END, chat_text
from retrain_jobs.encode import Encoded
from retrain_jobs.recipes.order import within

CHUNK = 3000
"""Examples that are drawn, sorted by length and batched at a time."""

SHARES = {Task.INTENT: 0.4, Task.EXTRACT: 0.4, Task.REPLY: 0.2}
"""Of lessons, not of traffic: copying values into JSON takes the most practice."""

DRILL_SHARE = 0.4
DRILL_UNTIL = 0.35
"""Copying is drilled in the first part of training: attention learns it far sooner from dense practice."""


def batches(tokenizer: PreTrainedTokenizerFast, tokens: int, progress: Callable[[], float]) -> Iterator[list[Encoded]]:
    """Yield batches of at most this many tokens for ever."""
    chunk = 0
    while True:
        examples = lessons(chunk, CHUNK, progress())
        yield from batched(encode(tokenizer, examples), tokens, Random(chunk))
        chunk += 1


def batched(rows: Sequence[Encoded], tokens: int, rng: Random) -> Iterator[list[Encoded]]:
    """Cut rows into batches of like length, in random order."""
    ordered = sorted(rows, key=len)
    groups = within(range(len(rows)), [len(row) for row in ordered], tokens)
    rng.shuffle(groups)
    yield from ([ordered[row] for row in group] for group in groups)


def lessons(chunk: int, n: int, progress: float) -> list[Example]:
    """Draw about n examples of all tasks, with drills while progress (0 to 1) is early."""
    drills = int(n * DRILL_SHARE) if progress < DRILL_UNTIL else 0
    return drill(chunk, drills) + [
        example
        for task, share in SHARES.items()
        for example in taught(f"lesson/{chunk}", int((n - drills) * share), Split.TRAIN, task)
    ]


def encode(tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]) -> list[Encoded]:
    """Give each example's prompt and reply, the end token included."""
    backend = tokenizer.backend_tokenizer
    prompts = backend.encode_batch([chat_text(example.messages) for example in examples])
    replies = backend.encode_batch([example.target + END for example in examples])
    return [Encoded(tuple(prompt.ids), tuple(reply.ids)) for prompt, reply in zip(prompts, replies, strict=True)]
