"""What the base model sees while it learns: endless fresh examples, in batches of like length."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from demo.corpus import Example, Split, Task, drill, taught
from demo.tokenizer import END, chat_text

CHUNK = 3000
"""Examples that are drawn, sorted by length and batched at a time."""

SHARES = {Task.INTENT: 0.4, Task.EXTRACT: 0.4, Task.REPLY: 0.2}
"""Of lessons, not of traffic: copying values into JSON takes the most practice."""

DRILL_SHARE = 0.4
DRILL_UNTIL = 0.35
"""Copying is drilled in the first part of training: attention learns it far sooner from dense practice."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Token ids [rows, length], right-padded, and where they are reply tokens (to be predicted)."""

    ids: Tensor
    is_reply: Tensor


def batches(tokenizer: PreTrainedTokenizerFast, tokens: int, progress: Callable[[], float]) -> Iterator[Batch]:
    """Yield batches of at most this many tokens, padding included, for ever."""
    chunk = 0
    while True:
        examples = lessons(chunk, CHUNK, progress())
        yield from batched(encode(tokenizer, examples), tokens, Random(chunk))
        chunk += 1


def batched(rows: list[tuple[list[int], list[int]]], tokens: int, rng: Random) -> Iterator[Batch]:
    """Cut rows of (prompt ids, reply ids) into batches of like length, in random order."""
    groups = list(_group(sorted(rows, key=lambda row: len(row[0]) + len(row[1])), tokens))
    rng.shuffle(groups)
    yield from (_pad(group) for group in groups)


def lessons(chunk: int, n: int, progress: float) -> list[Example]:
    """Draw about n examples of all tasks, with drills while progress (0 to 1) is early."""
    drills = int(n * DRILL_SHARE) if progress < DRILL_UNTIL else 0
    return drill(chunk, drills) + [
        example
        for task, share in SHARES.items()
        for example in taught(f"lesson/{chunk}", int((n - drills) * share), Split.TRAIN, task)
    ]


def encode(tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]) -> list[tuple[list[int], list[int]]]:
    """Give each example's prompt ids and reply ids, the end token included."""
    backend = tokenizer.backend_tokenizer
    prompts = backend.encode_batch([chat_text(example.messages) for example in examples])
    replies = backend.encode_batch([example.target + END for example in examples])
    return [(prompt.ids, reply.ids) for prompt, reply in zip(prompts, replies, strict=True)]


def _group(rows: list[tuple[list[int], list[int]]], tokens: int) -> Iterator[list[tuple[list[int], list[int]]]]:
    """Cut rows, which are sorted by length, into groups whose padded size stays within the tokens."""
    group: list[tuple[list[int], list[int]]] = []
    for prompt, reply in rows:
        if group and _width(prompt, reply) * (len(group) + 1) > tokens:
            yield group
            group = []
        group.append((prompt, reply))
    yield group


def _width(prompt: list[int], reply: list[int]) -> int:
    """Round a row's length up to a multiple of 8: kernels are made and cached per shape."""
    return -(-(len(prompt) + len(reply)) // 8) * 8


def _pad(rows: list[tuple[list[int], list[int]]]) -> Batch:
    length = max(_width(prompt, reply) for prompt, reply in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    is_reply = torch.zeros(len(rows), length, dtype=torch.bool)
    for row, (prompt, reply) in enumerate(rows):
        end = len(prompt) + len(reply)
        ids[row, :end] = torch.tensor(prompt + reply)
        is_reply[row, len(prompt) : end] = True
    return Batch(ids, is_reply)
