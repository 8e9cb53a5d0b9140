"""What a candidate must prove, who decides, and how the new champion is watched."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, field_validator

from service.core.freeze import parse_freeze
from service.settings.group import Group, Ratio, Seconds


class PromotionMode(StrEnum):
    AUTO = "auto"
    APPROVE = "approve"
    MANUAL = "manual"


class PromotionSettings(Group):
    """The evidence a candidate needs; see docs/promotion.md."""

    mode: PromotionMode = PromotionMode.AUTO
    alpha: float = Field(0.05, gt=0, lt=1, description="chance of promoting a candidate that is not better")
    min_pairs: int = Field(30, ge=1)
    max_pairs: int = Field(2000, ge=1)
    max_shadow_s: Seconds = 3600.0
    golden_margin: Ratio = Field(0.03, description="how much worse than the champion the golden set may become")
    indifference: float = Field(
        0.02, ge=0, lt=1, description="a gain that is not worth a promotion; what is proven to bring less is rejected"
    )
    webhook: str | None = Field(
        None,
        pattern="^https?://",
        description="is told by POST when a candidate waits for a person (mode approve, manual)",
    )
    canary: tuple[float, ...] = Field(
        (), description="shares of the clients that the candidate answers, one after another, before all of them do"
    )
    canary_step_s: Seconds = 300.0
    canary_min_labelled: int = Field(30, ge=1, description="labelled replies of the candidate that a step needs")
    watch_s: Seconds = 300.0
    watch_min_labelled: int = Field(30, ge=1)
    watch_mirror_ratio: Ratio = Field(
        0.1, description="share of requests that the previous champion answers in shadow while the new one is watched"
    )
    watch_margin: Ratio = Field(0.1, description="how far the new champion may stay behind its own score in shadow")
    cooldown_s: Seconds = Field(300.0, description="after a cycle ends, before drift may open the next")
    max_failures: int = Field(3, ge=1)
    freezes: tuple[str, ...] = Field(
        (), description="times (UTC) without promotions: 'Fri 16:00-Mon 08:00', or '22:00-06:00' for each day"
    )
    warm: bool = True

    @field_validator("canary")
    @classmethod
    def _grow(cls, canary: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0.0 < share < 1.0 for share in canary) or list(canary) != sorted(set(canary)):
            raise ValueError(f"{list(canary)} are no growing shares between 0 and 1; write [0.05, 0.25, 0.5], or []")
        return canary

    @field_validator("freezes")
    @classmethod
    def _are_times(cls, freezes: tuple[str, ...]) -> tuple[str, ...]:
        for freeze in freezes:
            parse_freeze(freeze)
        return freezes


class ControllerSettings(Group):
    interval_s: Seconds = 0.5
    lease_s: Seconds = 5.0
    quality_window: int = Field(100, ge=1, description="labelled requests behind the served-quality metric")
