"""Request ids that carry their own proof: an id that Trimtab never issued is known without asking the store."""

from __future__ import annotations

import os
from hashlib import blake2b
from hmac import compare_digest

_PREFIX = "req_"
_TIME_HEX = 12
_RANDOM_BYTES = 5
_TAG_BYTES = 4
_LENGTH = len(_PREFIX) + _TIME_HEX + 2 * _RANDOM_BYTES + 2 * _TAG_BYTES
_ENGINE_PREFIXES = ("chatcmpl-", "cmpl-")


class RequestIds:
    """Issues and recognizes `req_<milliseconds><random><tag>`, all in hex; the tag is a keyed hash of the rest."""

    def __init__(self, secret: bytes) -> None:
        self._keyed = blake2b(key=secret[:64], digest_size=_TAG_BYTES)

    def new(self, now: float) -> str:
        """An id that sorts by time; `now` in Unix seconds."""
        stem = f"{_PREFIX}{int(now * 1000) & 0xFFFFFFFFFFFF:012x}{os.urandom(_RANDOM_BYTES).hex()}"
        return stem + self._tag(stem)

    def issued(self, text: str) -> str | None:
        """The id if it was issued with this secret, else None.

        The `id` of a completion is taken too: engines build it from ours, as in `chatcmpl-req_…`.
        """
        for prefix in _ENGINE_PREFIXES:
            text = text.removeprefix(prefix)
        if len(text) != _LENGTH or not text.isascii() or not text.startswith(_PREFIX):
            return None
        stem, tag = text[: -2 * _TAG_BYTES], text[-2 * _TAG_BYTES :]
        return text if compare_digest(tag, self._tag(stem)) else None

    def _tag(self, stem: str) -> str:
        hashed = self._keyed.copy()
        hashed.update(stem.encode())
        return hashed.hexdigest()
