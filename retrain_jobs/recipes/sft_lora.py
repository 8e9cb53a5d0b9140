"""Supervised fine-tuning of a LoRA by PEFT: completion-only loss, early stopping, a limit on time."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from pydantic import BaseModel, ConfigDict, Field

from retrain_jobs import heap, limits
from retrain_jobs.base import Base
from retrain_jobs.encode import Encoded
from retrain_jobs.processes import Place
from retrain_jobs.recipes import loop
from retrain_jobs.recipes.checkpoint import Checkpoint
from retrain_jobs.recipes.flat import FlatAdamW
from retrain_jobs.recipes.lean import lean
from retrain_jobs.recipes.objective import Objective
from retrain_jobs.recipes.pace import Pace
from retrain_jobs.recipes.packing import packing
from retrain_jobs.recipes.together import size
from retrain_jobs.recipes.watch import Curve, OnStep, Watch
from service.settings import RetrainSettings


class Config(BaseModel):
    """`configs/sft_lora.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_length: int = Field(ge=16)
    max_tokens: int = Field(ge=16)
    warmup_ratio: float = Field(ge=0, le=1)
    adam_beta2: float = Field(gt=0, lt=1)
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    evaluations_per_epoch: int = Field(ge=1)
    targets: str


def train(
    base: Base, goal: Objective, heldout: Sequence[Encoded], knobs: RetrainSettings, config: Config,
    scratch: Path, on_step: OnStep, *, start: str | None = None, pace: Sequence[float] = (),
    checkpoint: Checkpoint | None = None, draw: Callable[[int], Sequence[int]] | None = None,
) -> tuple[Any, Curve]:  # fmt: skip
    """Train towards `goal`, keep the step that gets most of `heldout` right, of equals the one with the least loss.

    Args:
        scratch: where the adapter will be written.
        start: the folder of an adapter to go on from, whose rank and layers it keeps; None: a fresh one.
        pace: that of an earlier training (`Curve.pace`), to be repeated.
        draw: which rows make up an epoch, as `loop.Plan` says.

    Returns:
        The PEFT model (the base's modules wrapped in place) in evaluation mode, and how it went.

    Raises:
        Conflict: the loss became infinite or not a number, or memory or disk will not suffice.
    """
    per_epoch = -(-len(goal.lengths) // knobs.batch_size)
    plan = loop.Plan(
        seed=knobs.seed,
        batch_size=knobs.batch_size,
        steps=max(1, math.ceil(per_epoch * knobs.epochs)),
        evaluate_every=max(1, per_epoch // config.evaluations_per_epoch),
        learning_rate=knobs.learning_rate or goal.rate_ratio * learning_rate(base),
        max_tokens=config.max_tokens,
        draw=draw,
    )
    torch.manual_seed(knobs.seed)
    heap.part_large()
    model = get_peft_model(base.model, lora(knobs, config)) if start is None else opened(base, start, trainable=True)
    optimizer = FlatAdamW(
        [weight for weight in model.parameters() if weight.requires_grad], base.model.dtype, beta2=config.adam_beta2,
        weight_decay=config.weight_decay, max_norm=config.max_grad_norm,
    )  # fmt: skip
    on_gpu = base.model.device.type == "cuda"
    free = torch.cuda.mem_get_info()[0] if on_gpu else limits.free_memory() // Place.of(os.environ).local
    limits.require_room(_need(base, optimizer.master.numel(), goal, knobs, config), scratch, free)
    paced = Pace(config.warmup_ratio, knobs.max_seconds, recorded=pace)
    watch = Watch(Curve(), paced, knobs, on_step, plan.steps)
    with packing(base.model), lean(model):
        heap.give_back()
        loop.run(model, optimizer, goal, heldout, plan, paced, watch, checkpoint)
    heap.give_back()
    optimizer.release()
    curve = watch.curve
    if paced.timed:
        curve.pace = tuple(paced.shares[step] for step in sorted(paced.shares))
    return model.eval(), curve


def opened(base: Base, folder: str | Path, *, trainable: bool = False) -> Any:
    """The base with the adapter of `folder`."""
    model = PeftModel.from_pretrained(base.model, folder, is_trainable=trainable)
    # Its own says a digest, which PEFT would look for on the hub when the adapter is saved.
    model.peft_config["default"].base_model_name_or_path = base.model.name_or_path
    return model


def _need(base: Base, trainable: int, goal: Objective, knobs: RetrainSettings, config: Config) -> limits.Need:
    """At the worst: a process's share of a batch of rows as long as the longest, or as many as are computed at once."""
    rows, an_item = goal.rows, max(goal.lengths)
    shared = sum(map(len, {row.prompt[: row.shared] for row in rows}))
    shape = base.model.config.get_text_config()
    longest = max(map(len, rows))
    a_share = -(-min(knobs.batch_size, len(goal.lengths)) // size())
    own = max(an_item, min(config.max_tokens, an_item * a_share))
    share = max(len(row.target) / row.own for row in rows)
    return limits.estimate(
        tokens=shared + own, longest=longest, targets=math.ceil(share * own), layers=shape.num_hidden_layers,
        hidden=shape.hidden_size, intermediate=getattr(shape, "intermediate_size", 4 * shape.hidden_size),
        heads=shape.num_attention_heads, vocabulary=shape.vocab_size, width=base.model.dtype.itemsize,
        trainable=trainable,
    )  # fmt: skip


def lora(knobs: RetrainSettings, config: Config) -> LoraConfig:
    """A LoRA that vLLM serves: no DoRA, no biases, no whole modules, neither head nor embeddings."""
    return LoraConfig(
        r=knobs.rank,
        lora_alpha=knobs.alpha,
        lora_dropout=knobs.dropout,
        target_modules=config.targets,
        bias="none",
        task_type="CAUSAL_LM",
    )


def learning_rate(base: Base) -> float:
    """1 / the hidden size: 4e-3 at 256, 2.4e-4 at 4096, each near the best that LoRA takes."""
    return 1.0 / int(base.model.config.get_text_config().hidden_size)
