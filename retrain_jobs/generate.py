"""Greedy replies in batches: left padding, a KV cache, and finished rows leave the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from retrain_jobs.base import Base
from retrain_jobs.encode import Encoded
from retrain_jobs.recipes.forced import forced
from retrain_jobs.recipes.packing import packing


@dataclass(frozen=True, slots=True)
class Reply:
    """Token ids without the end token; `confidence` is the mean log-probability (nats a token), end token included."""

    ids: tuple[int, ...]
    confidence: float


@torch.inference_mode()
def greedy(
    model: Any,
    base: Base,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_tokens: int = 16_384,
    on_batch: Callable[[int], None] = lambda done: None,
) -> list[Reply]:
    """The most likely reply to each prompt, in the prompts' order.

    Args:
        model: `base.model`, or an adapter over it.
        batch_tokens: the most tokens (prompt and reply, padded) that are in memory at once.
        on_batch: told how many prompts are done; what it raises ends the work.
    """
    replies: dict[int, Reply] = {}
    for batch in _batches(prompts, max_new_tokens, batch_tokens):
        replies |= zip(batch, _greedy_batch(model, base, [prompts[i] for i in batch], max_new_tokens), strict=True)
        on_batch(len(replies))
    return [replies[i] for i in range(len(prompts))]


def answered(
    model: Any, base: Base, rows: Sequence[Encoded], *, max_new_tokens: int,
    on_share: Callable[[float], None] = lambda share: None,
) -> tuple[list[Reply], list[float]]:  # fmt: skip
    """The most likely reply to each row's prompt, and its target's loss (nats, summed), in the rows' order.

    The targets are read first, in one pass without padding. Where the likeliest token is the target's at every place,
    the reply is the target, and nothing needs to be generated: of a good adapter's replies, nine tenths.

    `on_share` is told the share done (0..1); what it raises ends the work.
    """
    work = 2 * len(rows)
    with packing(base.model):
        read = forced(model, rows, on_part=lambda done: on_share(done / work))
    ends = [bool(row.target) and row.target[-1] in base.end_ids for row in rows]
    replies = {
        i: Reply(rows[i].target[:-1], -one.loss / len(rows[i].target))
        for i, one in enumerate(read)
        if one.said and ends[i]
    }
    done_before = len(rows) + len(replies)
    rest = [i for i in range(len(rows)) if i not in replies]
    generated = greedy(
        model, base, [rows[i].prompt for i in rest], max_new_tokens=max_new_tokens,
        on_batch=lambda done: on_share((done_before + done) / work),
    )  # fmt: skip
    replies |= zip(rest, generated, strict=True)
    return [replies[i] for i in range(len(rows))], [one.loss for one in read]


def _greedy_batch(model: Any, base: Base, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[Reply]:
    from transformers import DynamicCache

    ids, mask = _left_padded(prompts, base)
    ends = torch.tensor(sorted(base.end_ids), device=ids.device)
    cache = DynamicCache(config=base.model.config)
    found: list[list[int]] = [[] for _ in prompts]
    total = [0.0] * len(prompts)
    count = [0] * len(prompts)
    alive = list(range(len(prompts)))
    positions = _positions(mask)
    for _ in range(max_new_tokens):
        out = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        best = torch.log_softmax(out.logits[:, -1].float(), -1).max(-1)
        ended = torch.isin(best.indices, ends)
        for row, (token, log_probability, end) in enumerate(
            zip(best.indices.tolist(), best.values.tolist(), ended.tolist(), strict=True)
        ):
            total[alive[row]] += log_probability
            count[alive[row]] += 1
            if not end:
                found[alive[row]].append(token)
        going = (~ended).nonzero().squeeze(1)
        if going.numel() == 0:
            break
        if going.numel() < len(alive):
            cache.batch_select_indices(going)
            alive = [alive[row] for row in going.tolist()]
        ids = best.indices[going].unsqueeze(1)
        mask = torch.nn.functional.pad(mask[going], (0, 1), value=1)
        positions = positions[going][:, -1:] + 1
    return [Reply(tuple(tokens), total[i] / max(1, count[i])) for i, tokens in enumerate(found)]


def _batches(prompts: Sequence[Sequence[int]], extra: int, batch_tokens: int) -> list[list[int]]:
    """Indices grouped by like length, longest first, so that padding is small and memory peaks at once."""
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    batches: list[list[int]] = []
    for i in order:
        width = (len(prompts[batches[-1][0]]) if batches else len(prompts[i])) + extra
        if not batches or (len(batches[-1]) + 1) * width > batch_tokens:
            batches.append([])
        batches[-1].append(i)
    return batches


def _left_padded(rows: Sequence[Sequence[int]], base: Base) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), base.pad_id)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    device = base.model.device
    return ids.to(device), mask.to(device)


def _positions(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)
