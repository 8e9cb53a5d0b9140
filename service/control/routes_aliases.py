"""/api/v1/aliases: what each alias serves, and what a person may do about it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.control import actions
from service.control.api_models import NewAlias, Promote, Retrain, Stage, Why
from service.control.context import Control
from service.control.overview import alias_overview, quality_view
from service.control.views import View, alias_view, cycle_view
from service.core.errors import NotFound
from service.core.merging import Merge
from service.core.names import check_alias
from service.core.records import Alias

Points = Annotated[int, Query(ge=1, le=500)]


def alias_routes(control: Control) -> APIRouter:
    routes = APIRouter(prefix="/aliases", tags=["aliases"])
    store = control.store

    async def view(alias: Alias) -> View:
        quality, labelled = await control.board.now(alias.name)
        cycle = await actions.open_cycle_of(control, alias.name)
        return alias_view(alias, cycle, {"now": quality, "labelled": labelled})

    @routes.get("")
    async def aliases() -> View:
        """All aliases: champion, previous, candidate, quality now, open cycle."""
        return {"data": [await view(alias) for alias in await store.aliases()]}

    @routes.post("", status_code=201)
    async def create(body: NewAlias, response: Response) -> View:
        """A new alias serves the base model; an existing one is returned as it is (200)."""
        name = check_alias(body.name)
        try:
            alias = await store.alias(name)
            response.status_code = 200
        except NotFound:
            alias = await store.add_alias(name, now=control.clock.now())
            await control.on_change()
        return await view(alias)

    @routes.get("/{name}")
    async def alias(name: str) -> View:
        """One alias with its quality over time, latest drift check and newest cycle."""
        return await alias_overview(control, await store.alias(name))

    @routes.get("/{name}/quality")
    async def quality(name: str, points: Points = 60) -> View:
        """Served quality in at most `points` buckets of time, from labelled requests."""
        await store.alias(name)
        return await quality_view(control, name, points)

    @routes.post("/{name}/promote")
    async def promote(name: str, body: Promote, request: Request) -> View:
        """Serve `adapter` (or `base`) from now on; it must be resident on every ready engine."""
        actor = request.state.actor
        promoted = await actions.promote(control, name, body.adapter, reason=body.reason, actor=actor, force=body.force)
        return await view(promoted)

    @routes.post("/{name}/rollback")
    async def rollback(name: str, body: Why, request: Request) -> View:
        """Serve the previous adapter again, or end a cycle that has not promoted yet."""
        return await view(await actions.rollback(control, name, reason=body.reason, actor=request.state.actor))

    @routes.post("/{name}/retrain", status_code=201)
    async def retrain(name: str, body: Retrain, request: Request) -> View:
        """Open a cycle now, whatever drift says; its candidate is trained, or merged from adapters."""
        merge = Merge(**body.merge.model_dump()) if body.merge is not None else None
        actor = request.state.actor
        return cycle_view(await actions.retrain(control, name, reason=body.reason, actor=actor, merge=merge))

    @routes.post("/{name}/candidate")
    async def stage(name: str, body: Stage, request: Request) -> View:
        """Load an adapter on every engine as the candidate, so that it can be promoted."""
        return await view(await actions.stage(control, name, body.adapter, actor=request.state.actor))

    @routes.post("/{name}/unlatch")
    async def unlatch(name: str, request: Request) -> View:
        """After failures in a row: let cycles open again."""
        return await view(await actions.unlatch(control, name, actor=request.state.actor))

    @routes.post("/{name}/approve")
    async def approve(name: str, request: Request) -> View:
        """Agree to the candidate in shadow (promotion.mode approve or manual)."""
        return cycle_view(await actions.approve(control, name, actor=request.state.actor))

    return routes
