"""Supervised fine-tuning of a fresh LoRA by TRL and PEFT: completion-only loss, early stopping, a limit on time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from pydantic import BaseModel, ConfigDict, Field
from transformers import PrinterCallback
from trl import SFTConfig

from retrain_jobs.base import Base
from retrain_jobs.encode import Encoded
from retrain_jobs.recipes.completion import Collator, CompletionTrainer
from retrain_jobs.recipes.pace import Pace
from retrain_jobs.recipes.watch import Curve, OnStep, Watch
from service.settings import RetrainSettings

SHORT = 512
"""Up to this many tokens a row, plain attention is faster on a CPU: the fused one has a slow backward pass."""


class Config(BaseModel):
    """`configs/sft_lora.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_length: int = Field(ge=16)
    warmup_ratio: float = Field(ge=0, le=1)
    adam_beta2: float = Field(gt=0, lt=1)
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    evaluations_per_epoch: int = Field(ge=1)
    targets: str


def train(
    base: Base, rows: Sequence[Encoded], heldout: Sequence[Encoded], knobs: RetrainSettings, config: Config,
    scratch: Path, on_step: OnStep, *, pace: Sequence[float] = (),
) -> tuple[Any, Curve]:  # fmt: skip
    """Train on `rows`, keep the step that gets most of `heldout` right, of equals the one with the least loss.

    Args:
        pace: that of an earlier training (`Curve.pace`), to be repeated.

    Returns:
        The PEFT model (the base's modules wrapped in place) in evaluation mode, and how it went.

    Raises:
        Conflict: the loss became infinite or not a number.
    """
    steps_per_epoch = -(-len(rows) // knobs.batch_size)
    every = max(1, steps_per_epoch // config.evaluations_per_epoch)
    if base.model.device.type == "cpu" and max(map(len, rows)) <= SHORT:
        base.model.set_attn_implementation("eager")
    curve = Curve()
    paced = Pace(config.warmup_ratio, knobs.max_seconds, recorded=pace)
    watch = Watch(curve, paced, knobs, on_step)
    arguments = SFTConfig(
        output_dir=str(scratch), save_strategy="no", report_to=[], disable_tqdm=True,
        use_cpu=base.model.device.type == "cpu",
        seed=knobs.seed, data_seed=knobs.seed, max_length=None, dataset_kwargs={"skip_prepare_dataset": True},
        num_train_epochs=knobs.epochs, per_device_train_batch_size=knobs.batch_size,
        per_device_eval_batch_size=4 * knobs.batch_size, train_sampling_strategy="group_by_length",
        learning_rate=learning_rate(base, knobs), adam_beta2=config.adam_beta2,
        weight_decay=config.weight_decay, max_grad_norm=config.max_grad_norm, optim="adamw_torch",
        gradient_checkpointing=False, bf16=False, logging_strategy="steps", logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps", eval_steps=every, prediction_loss_only=True, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = CompletionTrainer(
        model=base.model,
        args=arguments,
        train_dataset=Dataset.from_list([row.row() for row in rows]),
        eval_dataset=Dataset.from_list([row.row() for row in heldout]),
        data_collator=Collator(base.pad_id),
        processing_class=base.tokenizer,
        peft_config=lora(knobs, config),
        callbacks=[watch],
        pace=paced,
        curve=curve,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    watch.restore(trainer.model)
    if paced.timed:
        curve.pace = tuple(paced.shares[step] for step in sorted(paced.shares))
    return trainer.model.eval(), curve


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


def learning_rate(base: Base, knobs: RetrainSettings) -> float:
    """The settings' own, or 1 / the hidden size: 4e-3 at 256, 2.4e-4 at 4096, each near the best that LoRA takes."""
    return knobs.learning_rate or 1.0 / int(base.model.config.get_text_config().hidden_size)
