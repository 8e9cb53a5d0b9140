"""What a person may send to the control plane; an unknown field is an error."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from service.core.merging import MergeMethod
from service.core.records import Scope

Reason = Annotated[str, Field(min_length=1, max_length=500, description="why, for the audit log")]
Name = Annotated[str, Field(min_length=1, max_length=100)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class NewAlias(Body):
    name: Name


class Promote(Body):
    adapter: Name
    reason: Reason
    force: bool = Field(False, description="also an adapter that was rolled back and is locked out")


class Why(Body):
    reason: Reason


class MergeBody(Body):
    adapters: tuple[Name, ...] = Field(description="names of registered adapters")
    weights: tuple[float, ...] = Field((), description="one an adapter; none: equal ones")
    method: MergeMethod = MergeMethod.SVD
    density: float = Field(0.5, description="the share of an adapter's numbers that ties and dare_* keep")


class Retrain(Why):
    merge: MergeBody | None = Field(None, description="merge these adapters in place of training one")


class Stage(Body):
    adapter: Name | None = Field(description="null: take the candidate away again")


class NewAdapter(Body):
    alias: Name
    path: str = Field(min_length=1, max_length=4096, description="a PEFT folder on the server's machine")


class NewKey(Body):
    name: Name
    scopes: frozenset[Scope] = Field(min_length=1)
    requests_per_minute: int | None = Field(None, ge=1, description="null: no limit")
    tokens_per_minute: int | None = Field(None, ge=1, description="prompts and replies; null: no limit")
