"""Making API keys: the secret leaves once, its SHA-256 stays."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from hashlib import sha256

from service.core.records import Key, Scope

PREFIX = "tt_"


def new_key(
    name: str,
    scopes: Iterable[Scope],
    now: float,
    *,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
) -> tuple[Key, str]:
    """A key to store and its secret (`tt_` + 32 random bytes, URL-safe base64), to be shown once."""
    secret = PREFIX + secrets.token_urlsafe(32)
    digest = sha256(secret.encode()).hexdigest()
    key = Key(
        secrets.token_hex(6), name, digest, frozenset(scopes), now,
        requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute,
    )  # fmt: skip
    return key, secret
