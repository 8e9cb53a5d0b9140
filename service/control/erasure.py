"""/api/v1/erasures: everything of one user leaves the store, and who learned from it is told."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Self

from fastapi import APIRouter, Request
from pydantic import Field, StringConstraints, model_validator

from service.control.api_models import Body
from service.control.context import Control
from service.control.views import View
from service.core.names import user_source
from service.core.trained import adapters_trained_on

Subject = Annotated[str, StringConstraints(strip_whitespace=False, min_length=1, max_length=500)]
Source = Annotated[str, StringConstraints(pattern="^((user|key|import):.+|label-studio)$", max_length=500)]


class Erase(Body):
    """Exactly one of them."""

    user: Subject | None = Field(None, description="as clients sent it in `user`")
    source: Source | None = Field(None, description="`user:…` or `key:…`, or `import:…` for imported rows")
    request: Subject | None = Field(None, description="a request's id (`x-request-id`)")

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if sum(one is not None for one in (self.user, self.source, self.request)) != 1:
            raise ValueError("name exactly one of user, source and request")
        return self

    @property
    def subject(self) -> str:
        return user_source(self.user) if self.user is not None else str(self.source or self.request)


def erasure_routes(control: Control) -> APIRouter:
    routes = APIRouter(prefix="/erasures", tags=["erasures"])

    @routes.post("")
    async def erase(body: Erase, request: Request) -> View:
        """Delete all requests, replies, feedback and shadow replies of a user, of a key or of one request, also those
        that still wait in gateways' spools and dead letters; list the adapters that learned from them."""
        store, now, actor = control.store, control.clock.now(), request.state.actor
        erased = await store.erase(body.subject, actor=actor, now=now)
        trained = adapters_trained_on(await store.adapters(), erased.request_ids)
        if trained:
            names = ", ".join(one.adapter for one in trained)
            await store.add_event(
                "traffic.erased.adapters", actor=actor, now=now,
                message=f"Adapters that learned from what was erased of {body.subject!r}: {names}.",
                evidence={"subject": body.subject, "adapters": [asdict(one) for one in trained]},
            )  # fmt: skip
        return {
            "subject": body.subject,
            "captures": erased.captures,
            "feedback": erased.feedback,
            "shadow_replies": erased.shadow_replies,
            "adapters": [asdict(one) for one in trained],
        }

    return routes
