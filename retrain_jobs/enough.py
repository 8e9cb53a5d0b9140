"""Whether a set can be learned from at all."""

from __future__ import annotations

from retrain_jobs.dataset import Dataset
from retrain_jobs.examples import Slice
from retrain_jobs.options import Options
from service.core.errors import Conflict
from service.settings import Recipe


def require_enough(dataset: Dataset, options: Options) -> None:
    """Raise Conflict unless something can be learned from the set and measured on it."""
    kept = len(dataset.train) + len(dataset.heldout)
    rejected = len(dataset.rejected)
    left_out = ", ".join(f"{reason} {n}" for reason, n in sorted(dataset.dropped.items())) or "none"
    told = f"{kept} of {dataset.looked_at} labelled rows can be used (left out: {left_out})"
    if options.recipe is not Recipe.SFT_LORA and rejected < options.min_examples:
        what = "corrected replies" if options.recipe is Recipe.DPO_LORA else "replies with a thumb down"
        raise Conflict(
            f"Too few preferences to train on: {rejected} {what}, retrain.min_examples is {options.min_examples}; "
            f"{told}. Send more such feedback, lower it, or set retrain.recipe to sft_lora.",
            code="too_few_preferences",
        )
    if dataset.looked_at and not any(row.slice is Slice.NEW for row in dataset.train):
        raise Conflict(f"Nothing new to learn: {told}, none of them since the drift's onset.", code="nothing_new")
    if kept < options.min_examples:
        raise Conflict(
            f"Too few examples to train on: {told}, retrain.min_examples is {options.min_examples}; "
            "send more feedback with an expected reply, or lower it.",
            code="too_few_examples",
        )
    if dataset.contested > 0.5:
        raise Conflict(
            f"Conflicting labels everywhere: {dataset.contested:.0%} of the new prompts have several labels; {told}. "
            "Agree on one label a request, or make the prompts say what they differ by.",
            code="conflicting_labels",
        )
    if len({row.target for row in dataset.train}) < 2:
        raise Conflict(
            f"Only one target: {told}, and all say the same; label requests of other kinds too.", code="one_class"
        )
    if not dataset.heldout:
        raise Conflict(
            f"No held-out rows: {told}, but none may be held out without a near duplicate in training; "
            "send feedback on more varied requests or raise retrain.holdout_ratio.",
            code="no_heldout",
        )
