"""What one alias serves, and how its replies are scored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from service.core.guards import Guard
from service.settings.group import ADDRESS, IMPORT_PATH, Group, Seconds, Slices


class ScorerKind(StrEnum):
    EXACT = "exact"
    CLASSIFICATION = "classification"
    JSON = "json"
    REGEX = "regex"
    ROUGE_L = "rouge_l"
    CHRF = "chrf"
    BLEU = "bleu"


class JudgeSettings(Group):
    """A model that compares the replies of champion and candidate; its traffic goes to `url` alone."""

    url: str = Field(description="base of an OpenAI-style API, such as https://api.example.com/v1")
    model: str = Field(min_length=1)
    instructions: str = Field("Which reply answers the request better?", min_length=1, max_length=4000)
    max_rows: int = Field(60, ge=1, description="held-out rows that are compared, each in both orders")
    timeout_s: Seconds = 30.0
    concurrency: int = Field(4, ge=1, le=64)
    margin: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="how much more often than not it may prefer the champion; None: it decides nothing",
    )

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if not ADDRESS.fullmatch(url):
            raise ValueError(f"{url!r} is no address; write one such as https://api.example.com/v1")
        return url.rstrip("/")


class AliasSettings(Group):
    scorer: str = Field(ScorerKind.EXACT.value, description="a kind, or package.module:function")
    pattern: str | None = Field(None, description="regex scorer: the pattern that a right reply matches in full")
    golden_set: Path | None = Field(None, description="JSONL of {messages, expected}")
    champion: str | None = Field(None, description="an adapter's name to start from; None: the base model")
    slices: Slices | None = Field(None, description="instead of drift.slices")
    guards: Mapping[Guard, Annotated[float, Field(gt=0, lt=1)]] = Field(
        default_factory=dict, description="what no candidate may make worse by more than this margin"
    )

    judge: JudgeSettings | None = Field(None, description="a model that compares replies where no scorer can")

    @field_validator("scorer")
    @classmethod
    def _is_known(cls, scorer: str) -> str:
        if scorer not in set(ScorerKind) and not IMPORT_PATH.fullmatch(scorer):
            kinds = ", ".join(f"'{kind}'" for kind in ScorerKind)
            raise ValueError(f"{scorer!r} is no scorer; use one of {kinds}, or your own as package.module:function")
        return scorer

    @model_validator(mode="after")
    def _pattern_is_usable(self) -> Self:
        if self.scorer == ScorerKind.REGEX and self.pattern is None:
            raise ValueError("the regex scorer needs a pattern that right replies match")
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            raise ValueError(f"the pattern is not a regular expression ({error})") from error
        return self
