"""Champion and candidate answer the same rows: held-out ones of both slices, and the golden set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from retrain_jobs.base import Base
from retrain_jobs.encode import Encoded
from retrain_jobs.generate import greedy, target_losses
from retrain_jobs.score import Answer, compare
from service.core.scoring import score
from service.settings import AliasSettings

CHAMPION, CANDIDATE = "champion", "default"
"""PEFT's names of the two adapters on one base."""

SPARE_TOKENS = 8
"""A reply may be this much longer than the longest target before it is cut off."""


@dataclass(frozen=True, slots=True)
class Item:
    """One row to answer. `group` is `new` or `replay` for held-out rows, `golden` for golden ones."""

    tokens: Encoded
    target: str
    group: str


def evaluate(
    peft_model: Any, base: Base, champion: str | None, items: Sequence[Item], alias: AliasSettings, *, seed: int,
    on_share: Callable[[float], None],
) -> dict[str, Any]:  # fmt: skip
    """Score both systems on every slice; the shape is that of `Job.result["evaluation"]`.

    Args:
        peft_model: the base with the candidate as its active adapter.
        champion: the folder of the champion's adapter; None for the base itself.
        on_share: told the share done (0..1); what it raises ends the evaluation.
    """
    if champion is not None:
        peft_model.load_adapter(champion, CHAMPION, is_trainable=False)
    with _serving(peft_model, CHAMPION if champion else None):
        by_champion = _answers(peft_model, base, items, alias, lambda share: on_share(share / 2))
    with _serving(peft_model, CANDIDATE):
        by_candidate = _answers(peft_model, base, items, alias, lambda share: on_share(0.5 + share / 2))

    def slice_of(*groups: str) -> dict[str, Any]:
        chosen = [i for i, item in enumerate(items) if item.group in groups]
        return compare(
            [items[i].target for i in chosen],
            [by_champion[i] for i in chosen],
            [by_candidate[i] for i in chosen],
            seed=seed,
        )

    return {
        "scorer": str(alias.scorer),
        "heldout": {"all": slice_of("new", "replay"), "new": slice_of("new"), "replay": slice_of("replay")},
        "golden": slice_of("golden"),
    }


@contextmanager
def _serving(peft_model: Any, adapter: str | None) -> Iterator[None]:
    """Within the block the model answers as the base, or as one adapter over it.

    In float32 the adapter is folded into the weights, which halves the time of a small model's step; in bfloat16 that
    would round away part of it.
    """
    if adapter is None:
        with peft_model.disable_adapter():
            yield
        return
    peft_model.set_adapter(adapter)
    fold = peft_model.dtype == torch.float32
    if fold:
        peft_model.merge_adapter([adapter])
    try:
        yield
    finally:
        if fold:
            peft_model.unmerge_adapter()


def _answers(
    model: Any, base: Base, items: Sequence[Item], alias: AliasSettings, on_share: Callable[[float], None]
) -> list[Answer]:
    longest = max(len(item.tokens.target) for item in items)
    replies = greedy(
        model, base, [item.tokens.prompt for item in items], max_new_tokens=longest + SPARE_TOKENS,
        on_batch=lambda done: on_share(done / len(items)),
    )  # fmt: skip
    losses = target_losses(model, base, [item.tokens for item in items])
    answers = []
    for item, reply, loss in zip(items, replies, losses, strict=True):
        text = base.tokenizer.decode(reply.ids, skip_special_tokens=True).strip()
        value = score(str(alias.scorer), text, item.target, None, alias.pattern)
        answers.append(
            Answer(text, 0.0 if value is None else value, math.exp(reply.confidence), loss / len(item.tokens.target))
        )
    return answers
