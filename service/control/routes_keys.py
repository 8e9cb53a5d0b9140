"""/api/v1/keys: a secret is shown once, when it is made."""

from __future__ import annotations

from fastapi import APIRouter, Request

from service.control.api_models import NewKey
from service.control.context import Control
from service.control.keys import new_key
from service.control.views import View, key_view


def key_routes(control: Control) -> APIRouter:
    routes = APIRouter(prefix="/keys", tags=["keys"])
    store = control.store

    @routes.get("")
    async def keys() -> View:
        """All keys, also revoked ones, without their secrets."""
        return {"data": [key_view(key) for key in await store.keys()]}

    @routes.post("", status_code=201)
    async def create(body: NewKey, request: Request) -> View:
        """A new key; `secret` is in this reply and nowhere else."""
        now = control.clock.now()
        key, secret = new_key(
            body.name, body.scopes, now,
            requests_per_minute=body.requests_per_minute, tokens_per_minute=body.tokens_per_minute,
        )  # fmt: skip
        await store.add_key(key)
        message = f"Key {key.id} ({body.name}) was made for {', '.join(sorted(body.scopes))}."
        await store.add_event("key.created", actor=request.state.actor, message=message, now=now)
        await control.on_change()
        return {**key_view(key), "secret": secret}

    @routes.delete("/{key_id}")
    async def revoke(key_id: str, request: Request) -> View:
        """The key stops working within gateway.keys_poll_s everywhere."""
        now = control.clock.now()
        await store.revoke_key(key_id, now=now)
        await store.add_event("key.revoked", actor=request.state.actor, message=f"Key {key_id} was revoked.", now=now)
        await control.on_change()
        return next(key_view(key) for key in await store.keys() if key.id == key_id)

    return routes
