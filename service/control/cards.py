"""Model cards as replies: read from the store, shown in a sandbox."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from fastapi import Response

from service.control.card import card
from service.control.context import Control
from service.control.document import Document, to_html, to_markdown
from service.core.errors import NotFound

_HEADERS = {
    "content-security-policy": (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


class Form(StrEnum):
    MARKDOWN = "markdown"
    HTML = "html"


async def read_card(control: Control, name: str) -> Document:
    """The card of the adapter `name`; NotFound when there is none."""
    store = control.store
    adapter = await store.adapter(name)
    cycle, events, result = None, [], dict[str, Any]()
    if adapter.cycle_id is not None:
        with contextlib.suppress(NotFound):  # an adapter may outlive the record of its cycle
            cycle = await store.cycle(adapter.cycle_id)
            events = list(await store.events(cycle_id=cycle.id, limit=None))[::-1]
            result = await _result(control, cycle.job_id, adapter.digest)
    return card(adapter, result, cycle, events)


async def _result(control: Control, job_id: str | None, digest: str) -> dict[str, Any]:
    """What the job said about these very bytes; nothing where it made others."""
    found: Mapping[str, Any] = (await control.store.job(job_id)).result if job_id is not None else {}
    return dict(found) if found.get("digest") == digest else {}


def card_reply(document: Document, form: Form) -> Response:
    if form is Form.HTML:
        return Response(to_html(document), media_type="text/html", headers=_HEADERS)
    return Response(to_markdown(document), media_type="text/markdown", headers=_HEADERS)


def card_subject(name: str) -> str:
    """What a ticket for this card is made out to: no report's ticket opens a card."""
    return f"card/{name}"
