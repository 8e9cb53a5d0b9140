"""POST /v1/feedback: a user's signal on one reply, checked, named by its content."""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from service.core.errors import BadRequest, NotFound
from service.core.records import Feedback
from service.gateway.ask import decode
from service.gateway.ids import RequestIds

_RATINGS = {"up": 1.0, "down": -1.0}


class FeedbackBody(Struct, forbid_unknown_fields=True):
    """What a client sends; at least one of `rating` and `expected`."""

    request_id: Annotated[str, Meta(max_length=128)]
    rating: Literal["up", "down"] | Annotated[float, Meta(ge=-1, le=1)] | None = None
    expected: Annotated[str, Meta(max_length=100_000)] | None = None
    tags: Annotated[
        dict[Annotated[str, Meta(min_length=1, max_length=64)], Annotated[str, Meta(max_length=256)]],
        Meta(max_length=16),
    ] = {}


_decoder = msgspec.json.Decoder(FeedbackBody)


def read_feedback(body: bytes, ids: RequestIds, now: float) -> Feedback:
    """Check the body; the same content always has the same id.

    Raises:
        BadRequest: unknown, missing or wrong fields.
        NotFound: Trimtab never issued this request id.
    """
    given: FeedbackBody = decode(_decoder, body)
    request_id = ids.issued(given.request_id)
    if request_id is None:
        raise NotFound(
            "There is no such request; send the x-request-id header of the reply (or the reply's id).",
            param="request_id",
            code="request_not_found",
        )
    if given.rating is None and given.expected is None:
        raise BadRequest(
            "Give a rating, the expected reply, or both.", param="rating", code="missing_required_parameter"
        )
    if any("\0" in text for text in (given.expected or "", *given.tags, *given.tags.values())):
        raise BadRequest("The NUL character is not accepted.", code="invalid_value")
    rating = _RATINGS[given.rating] if isinstance(given.rating, str) else given.rating
    content = msgspec.json.encode([request_id, rating, given.expected, sorted(given.tags.items())])
    return Feedback(sha256(content).hexdigest(), request_id, now, rating, given.expected, given.tags)
