"""When a change of traffic is told, and to what it is compared."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import Field, model_validator

from service.core.season import Season
from service.settings.group import Group, Ratio, Seconds, Slices


class ReferenceMode(StrEnum):
    PROMOTION = "promotion"
    PINNED = "pinned"
    ROLLING = "rolling"


class PresetSettings(Group):
    """An Evidently preset; a name alone stands for one without options."""

    name: str = Field(min_length=1)
    options: Mapping[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _of_a_name(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given


class DescriptorSettings(PresetSettings):
    """An Evidently descriptor of prompts or of replies; a name alone stands for one of prompts without options."""

    of: str = Field("prompt", pattern="^(prompt|reply)$")


class DriftSettings(Group):
    """Windows are counted in requests; see docs/drift.md."""

    enabled: bool = True
    interval_s: Seconds = 5.0
    reference_size: int = Field(500, ge=20)
    current_size: int = Field(200, ge=10)
    min_labelled: int = Field(20, ge=1, description="labelled requests a window needs before quality is judged")
    false_alarm_every: int = Field(10_000, ge=100, description="requests between false alarms, all detectors together")
    false_alarm_days: float | None = Field(
        None, gt=0, description="days between false alarms, in place of false_alarm_every: by the last day's traffic"
    )
    season: Season = Field(Season.NONE, description="compare by time of `day` or of the `week` only")
    quality_drop: Ratio = Field(0.05, description="a loss of quality smaller than this never triggers retraining")
    require_quality_loss: bool = True
    embedder: str | None = Field(
        None, description="None: the base model's own; or an ONNX folder, or an OpenAI-style URL"
    )
    embedder_model: str | None = Field(None, description="of an embeddings URL: the model's name there")
    threads: int = Field(1, ge=1)
    keep_reports: int = Field(50, ge=1)
    reference: ReferenceMode = Field(
        ReferenceMode.PROMOTION, description="where the reference begins: at the last promotion, where it was pinned, "
        "or at newer traffic whenever enough of it was free of drift"
    )  # fmt: skip
    slices: Slices = Field((), description="keys of requests' metadata, or key=value, that are judged alone too")
    descriptors: tuple[DescriptorSettings, ...] = Field(
        (), description="Evidently descriptors by name, or module:name, that are watched as features too"
    )
    presets: tuple[PresetSettings, ...] = Field(
        (), description="Evidently presets by name, or module:name, that reports hold too"
    )
