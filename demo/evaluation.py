"""Judges a model directory on the corpus: greedy replies, exact match, and what confidence tells."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from demo.corpus import Example, Split, Task, novel, taught
from demo.lessons import encode
from demo.tokenizer import END
from retrain_jobs.base import fastest_dtype

ROWS = 64
MAX_REPLY_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Reply:
    """A greedy reply, and the mean natural log-probability of its tokens, the end token included."""

    text: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Report:
    """Shares of exact matches on held-out phrasings, by task, and how well confidence tells novel requests."""

    exact_match: dict[str, float]
    novel_exact_match: float
    novelty_auroc: float


def evaluate(directory: Path, n: int = 300, seed: str = "evaluation") -> Report:
    """Judge a saved model on n held-out requests per task and n novel ones."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=fastest_dtype())
    matches: dict[str, float] = {}
    confidences: dict[str, list[float]] = {}
    for task in (Task.INTENT, Task.EXTRACT, Task.REPLY):
        examples = taught(seed, n, Split.HELD, task)
        replies = answer(model, tokenizer, examples)
        matches[task.value] = exact_match(examples, replies)
        confidences[task.value] = [reply.confidence for reply in replies]
    examples = novel(seed, n, Split.HELD)
    replies = answer(model, tokenizer, examples)
    return Report(
        exact_match=matches,
        novel_exact_match=exact_match(examples, replies),
        novelty_auroc=auroc(confidences[Task.INTENT.value], [reply.confidence for reply in replies]),
    )


@torch.inference_mode()
def answer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, examples: list[Example]) -> list[Reply]:
    """Reply greedily to each example, in batches of like length."""
    end = tokenizer.convert_tokens_to_ids(END)
    prompts = [row.prompt for row in encode(tokenizer, examples)]
    order = sorted(range(len(examples)), key=lambda index: len(prompts[index]))
    replies: dict[int, Reply] = {}
    for start in range(0, len(order), ROWS):
        rows = order[start : start + ROWS]
        length = max(len(prompts[index]) for index in rows)
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, index in enumerate(rows):
            ids[row, length - len(prompts[index]) :] = torch.tensor(prompts[index])
            mask[row, length - len(prompts[index]) :] = 1
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=MAX_REPLY_TOKENS,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        written = output.sequences[:, length:]
        scores = torch.stack(output.logits, dim=1).float().log_softmax(-1)
        chosen = scores.gather(2, written.unsqueeze(2)).squeeze(2)
        for row, index in enumerate(rows):
            tokens = written[row].tolist()
            size = tokens.index(end) if end in tokens else len(tokens)
            replies[index] = Reply(tokenizer.decode(tokens[:size]), chosen[row, : size + 1].mean().item())
    return [replies[index] for index in range(len(examples))]


def exact_match(examples: list[Example], replies: list[Reply]) -> float:
    """Give the share of replies that are the target, letter by letter."""
    pairs = zip(examples, replies, strict=True)
    return sum(example.target == reply.text for example, reply in pairs) / len(examples)


def auroc(higher: list[float], lower: list[float]) -> float:
    """Give the chance that one of `higher` exceeds one of `lower`; ties count half."""
    wins = sum((one > other) + 0.5 * (one == other) for one in higher for other in lower)
    return wins / (len(higher) * len(lower))
