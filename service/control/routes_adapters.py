"""/api/v1/adapters: what there is, and new ones from files or from a folder of this machine."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from service.control.api_models import NewAdapter
from service.control.cards import Form, card_reply, card_subject, read_card
from service.control.context import Control
from service.control.reports import SECRET, TICKET_LIFE_S, make_ticket
from service.control.views import View, adapter_view, plain
from service.core.errors import BadAdapter, BadRequest
from service.core.names import check_alias
from service.core.records import Adapter
from service.drivers.scratch import scratch

FILES = frozenset({"adapter_config.json", "adapter_model.safetensors"})


def adapter_routes(control: Control) -> APIRouter:
    routes = APIRouter(prefix="/adapters", tags=["adapters"])
    store = control.store

    async def view(adapter: Adapter) -> View:
        return adapter_view(adapter, (await store.routing()).engines)

    @routes.get("")
    async def adapters(alias: str | None = None) -> View:
        """All adapters, or one alias's, newest first."""
        engines = (await store.routing()).engines
        return {"data": [adapter_view(adapter, engines) for adapter in await store.adapters(alias)]}

    @routes.get("/{name}")
    async def adapter(name: str) -> View:
        """One adapter with its manifest: the data, settings and digests that it was made from."""
        found = await store.adapter(name)
        return {**await view(found), "base_digest": found.base_digest, "manifest": plain(found.manifest)}

    @routes.get("/{name}/card", response_class=Response)
    async def model_card(name: str, form: Annotated[Form, Query(alias="format")] = Form.MARKDOWN) -> Response:
        """The model card: data, settings, curves, metrics, limits and lineage, as Markdown or one HTML file."""
        return card_reply(await read_card(control, name), form)

    @routes.get("/{name}/card-link")
    async def card_link(name: str) -> View:
        """A link to the card as HTML that works without a key for a minute, relative to /console."""
        found = (await store.adapter(name)).name
        ticket = make_ticket(await store.secret(SECRET), card_subject(found), control.clock.now())
        return {"href": f"console/cards/{found}?ticket={ticket}", "valid_s": TICKET_LIFE_S}

    @routes.post("", status_code=201, openapi_extra=_BODY)
    async def add(request: Request) -> View:
        """Add a PEFT LoRA: JSON with a folder's path, or a form with the two files."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        if kind == "multipart/form-data":
            added = await _from_form(control, request)
        elif kind == "application/json":
            added = await _from_path(control, await request.body())
        else:
            raise BadRequest("Send JSON with 'alias' and 'path', or a multipart form with 'alias' and 'files'.")
        await control.on_change()
        return await view(added)

    @routes.delete("/{name}")
    async def remove(name: str, request: Request) -> View:
        """Forget an adapter that nothing serves, would return to or is proving; its files stay in the adapter store."""
        now = control.clock.now()
        await store.remove_adapter(name, actor=request.state.actor, reason="Removed by hand.", now=now)
        await control.on_change()
        return {"removed": name}

    return routes


async def _from_path(control: Control, body: bytes) -> Adapter:
    try:
        wanted = NewAdapter.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"]) or "body"
        raise BadRequest(f"{where}: {fault['msg']}.", param=where) from error
    folder = Path(wanted.path)
    alias = (await control.store.alias(check_alias(wanted.alias))).name
    if not await asyncio.to_thread(folder.is_dir):
        raise BadAdapter(f"There is no folder {wanted.path} on the server's machine.", param="path")
    return await control.add_adapter(alias, folder)


async def _from_form(control: Control, request: Request) -> Adapter:
    async with request.form(max_files=len(FILES), max_fields=1) as form:
        alias = form.get("alias")
        files = [item for item in form.getlist("files") if isinstance(item, UploadFile)]
        if not isinstance(alias, str):
            raise BadRequest("The form lacks the field 'alias'.", param="alias")
        if {file.filename for file in files} != FILES or len(files) != len(FILES):
            raise BadAdapter(f"Send exactly these files as 'files': {', '.join(sorted(FILES))}.", param="files")
        name = (await control.store.alias(check_alias(alias))).name
        with scratch(control.settings.scratch_dir, "upload-") as folder:
            for file in files:
                await asyncio.to_thread(_copy, file, folder / str(file.filename))
            return await control.add_adapter(name, folder)


def _copy(file: UploadFile, target: Path) -> None:
    with target.open("wb") as sink:
        shutil.copyfileobj(file.file, sink)


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": NewAdapter.model_json_schema()},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["alias", "files"],
                    "properties": {
                        "alias": {"type": "string"},
                        "files": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "adapter_config.json and adapter_model.safetensors",
                        },
                    },
                }
            },
        },
    }
}
