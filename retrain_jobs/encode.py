"""Text to tokens as the engine does it: a prompt ends with the generation prompt, a target with an end token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retrain_jobs.base import Base

IGNORED = -100
"""What PyTorch's loss skips: the prompt is read, never learned."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a prompt and of its target with the end token.

    `shared` tokens of the prompt are other rows' beginning, too, and are computed once for all that are computed
    together (`recipes/beginnings.py`).
    """

    prompt: tuple[int, ...]
    target: tuple[int, ...]
    shared: int = 0

    def __len__(self) -> int:
        return len(self.prompt) + len(self.target)

    @property
    def own(self) -> int:
        """Tokens that are computed for this row alone."""
        return len(self) - self.shared

    def row(self) -> dict[str, list[int]]:
        """As TRL takes a tokenized row; only the target bears a loss."""
        return {
            "input_ids": [*self.prompt, *self.target],
            "labels": [*([IGNORED] * len(self.prompt)), *self.target],
        }


def encode(base: Base, messages: Sequence[dict[str, str]], target: str) -> Encoded | None:
    """The row's tokens; None where prompt and target together are longer than the context."""
    tokenizer = base.tokenizer
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": target}], tokenize=False)
    reply = whole[len(prompt) :] if whole.startswith(prompt) else target
    target_ids = _ended(tokenizer(reply, add_special_tokens=False)["input_ids"], base.end_ids)
    encoded = Encoded(tuple(tokenizer(prompt, add_special_tokens=False)["input_ids"]), target_ids)
    return encoded if len(encoded) <= base.max_length else None


def _ended(ids: Sequence[int], end_ids: frozenset[int]) -> tuple[int, ...]:
    """Up to the first end token, which is added where the template sets none."""
    for position, token in enumerate(ids):
        if token in end_ids:
            return tuple(ids[: position + 1])
    return (*ids, min(end_ids)) if end_ids else tuple(ids)
