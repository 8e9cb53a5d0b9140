"""What candidates are trained on, how, and within which bounds."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from service.settings.group import ADDRESS, IMPORT_PATH, Group, Ratio, Seconds


class Recipe(StrEnum):
    SFT_LORA = "sft_lora"
    DPO_LORA = "dpo_lora"
    KTO_LORA = "kto_lora"


class WarmStart(StrEnum):
    """Whose weights a training begins with."""

    FRESH = "fresh"
    CHAMPION = "champion"
    BOTH = "both"


class Quantize(StrEnum):
    """How the base model's weights are held while an adapter is trained over it."""

    NONE = "none"
    EIGHT = "8bit"
    FOUR = "4bit"


class Augment(StrEnum):
    TYPOS = "typos"
    CASING = "casing"
    TEMPLATES = "templates"


class RetrainSettings(Group):
    launcher: str = Field("subprocess", pattern="^(subprocess|kubernetes)$")
    namespace: str | None = None
    job_template: Path | None = Field(None, description="Kubernetes Job manifest (YAML) that jobs are made from")
    recipe: Recipe = Field(
        Recipe.SFT_LORA, description="what is learned: targets, preferences (corrected replies), or thumbs"
    )
    warm_start: WarmStart = Field(
        WarmStart.FRESH, description="both: from the champion's adapter, then fresh if time is left; the better is kept"
    )
    quantize: Quantize = Field(
        Quantize.NONE, description="4bit (NF4) or 8bit: the base model in training; needs a GPU and bitsandbytes"
    )
    every_s: Seconds | None = Field(None, description="a cycle so long after the last one, whatever drift says")
    every_labels: int | None = Field(None, ge=1, description="a cycle after so many newly labelled requests")
    max_cycles_per_day: int = Field(24, ge=1, description="of an alias; people may open more")
    max_jobs: int = Field(1, ge=1, description="at a time, of all aliases; further cycles wait for their turn")
    min_examples: int = Field(40, ge=4)
    min_new_examples: int = Field(200, ge=1, description="labelled requests since the drift that training waits for")
    max_wait_s: Seconds = Field(3600.0, description="after this long, training starts with what there is")
    max_examples: int = Field(2000, ge=4)
    replay_ratio: Ratio = Field(0.5, description="share of the training set that comes from the reference")
    max_source_ratio: Ratio = Field(0.5, description="share of the training set that one user or key may make up")
    max_key_ratio: Ratio = Field(1.0, description="share of the training set that requests with one key may make up")
    check_labels: bool = Field(True, description="leave out what looks planted; probe for triggers")
    languages: tuple[str, ...] = Field(
        (), description="ISO 639 codes (en, de) of what is learned from; requests in others are left out; (): all"
    )
    personal: tuple[str, ...] = Field(
        (), description="package.module:function each, which tells what is personal in a text, such as names"
    )
    task_temperature: float = Field(
        1.0, ge=1.0, le=100.0, description="tasks (system prompts) are drawn by size ** (1 / this); 1: as they come"
    )
    augment: tuple[Augment, ...] = Field((), description="training rows in other wordings too, one each")
    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: Ratio = Field(0.0, description="of the LoRA's inputs; costs a quarter of a CPU's step")
    learning_rate: float | None = Field(None, gt=0, description="None: 1 / the base model's hidden size")
    epochs: float = Field(8.0, gt=0)
    batch_size: int = Field(16, ge=1)
    max_seconds: Seconds = 90.0
    search_s: float = Field(0.0, ge=0, description="for trials of learning rate, rank and dropout before; 0: none")
    patience: int = Field(3, ge=1, description="evaluations without a better held-out result before training stops")
    holdout_ratio: Ratio = 0.2
    served_rows: int = Field(48, ge=0, description="rows that the candidate answers through the engines too; 0: none")
    served_tolerance: Ratio = Field(
        0.1, description="how far its scores there may differ from those in PyTorch, on average over the rows"
    )
    served_wait_s: Seconds = Field(120.0, description="for all engines to load the candidate")
    checkpoint_s: Seconds = Field(15.0, description="at most so much of a training is lost to a kill")
    seed: int = 0
    threads: int | None = Field(
        None, ge=1, description="None: half of the cores, or all of them where the job is Kubernetes' own"
    )
    nice: int = Field(19, ge=0, le=19, description="19: runs only when nothing else on the machine wants to")
    processes: int = Field(
        1, ge=1, description="on this machine, that share each step's rows; a launcher's WORLD_SIZE comes first"
    )
    spin: int = Field(
        0,
        ge=0,
        description="turns that a thread waits busily: 20000 is up to 2x as fast on cores that are training's own",
    )
    heartbeat_s: Seconds = 1.0
    stale_after_s: Seconds = 30.0
    start_timeout_s: Seconds = Field(900.0, description="a job that nobody began by then has failed")
    max_attempts: int = Field(2, ge=1)
    mlflow_url: str | None = Field(None, description="an MLflow server that finished jobs are recorded in too")

    @field_validator("mlflow_url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        if url is not None and not ADDRESS.fullmatch(url):
            raise ValueError(f"{url!r} is no address; write one such as http://mlflow:5000")
        return url

    @field_validator("languages")
    @classmethod
    def _are_codes(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        for code in codes:
            if not re.fullmatch("[a-z]{2,3}", code):
                raise ValueError(f"{code!r} is no language's code; write those of ISO 639, such as en or de")
        return codes

    @field_validator("personal")
    @classmethod
    def _are_import_paths(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            if not IMPORT_PATH.fullmatch(path):
                raise ValueError(f"{path!r} is no import path; write package.module:function")
        return paths

    @model_validator(mode="after")
    def _recipe_knows_its_options(self) -> Self:
        of_targets = {"search_s": self.search_s > 0, "augment": bool(self.augment),
                      "task_temperature": self.task_temperature != 1.0}  # fmt: skip
        given = " and ".join(name for name, asked in of_targets.items() if asked)
        if given and self.recipe is not Recipe.SFT_LORA:
            raise ValueError(
                f"{given} is for recipe sft_lora, not for {self.recipe}; leave it out, or choose that recipe"
            )
        if self.search_s and self.warm_start is not WarmStart.FRESH:
            raise ValueError(
                f"search_s looks for a rank, and warm_start {self.warm_start} keeps the champion's; set only one"
            )
        return self
