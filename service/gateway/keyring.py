"""Who may do what: keys are compared by hash, in constant time; where they are optional, strangers may come without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from hmac import compare_digest

from service.core.errors import Forbidden, Unauthenticated, Unavailable
from service.core.records import Key, Scope
from service.ports import Clock

_BEARER = "bearer "


class Keyring:
    """The keys that are valid now; replaced whole by `swap`."""

    def __init__(self, required: bool, *, stale_after_s: float, clock: Clock) -> None:
        self._required = required
        self._stale_after_s = stale_after_s
        self._clock = clock
        self._read_at = 0.0
        self._keys: Mapping[str, Key] | None = None

    def swap(self, keys: Sequence[Key]) -> None:
        self._read_at = self._clock.now()
        self._keys = {key.sha256: key for key in keys if key.revoked_at is None}

    def authorize(self, headers: Mapping[str, str], scope: Scope) -> str | None:
        """The name of the key that these headers carry, None for a stranger where keys are optional.

        Raises:
            Unauthenticated: a key is required and there is none, or nobody issued it.
            Forbidden: the key lacks the scope.
            Unavailable: the key is not known, but the keys were not read for a while: it may be a new one.
        """
        key = self.check(headers.get("authorization"), scope)
        return key.name if key else None

    def check(self, authorization: str | None, scope: Scope) -> Key | None:
        """As `authorize`, from the header's value; the key itself."""
        if self._keys is None:
            if self._required:
                raise Unavailable("The keys have not been read from the store yet; retry shortly.", retry_after_s=1.0)
            return None
        key = self._find(authorization) if authorization else None
        if key is None:
            if not self._required:
                return None
            if authorization is None:
                raise Unauthenticated("No API key was given; send it as 'Authorization: Bearer <key>'.")
            if self._clock.now() - self._read_at > self._stale_after_s:
                raise Unavailable(
                    "This API key is not known here, and the store that knows the newest is away; retry shortly.",
                    retry_after_s=1.0,
                )
            raise Unauthenticated("The API key is unknown or revoked; `trimtab keys` lists and creates keys.")
        if scope not in key.scopes:
            raise Forbidden(f"The key {key.name!r} lacks the scope {scope.value!r}; use one that has it.")
        return key

    def _find(self, authorization: str) -> Key | None:
        if authorization[: len(_BEARER)].lower() != _BEARER:
            return None
        digest = sha256(authorization[len(_BEARER) :].strip().encode("utf-8", "replace")).hexdigest()
        key = self._keys.get(digest) if self._keys else None
        return key if key is not None and compare_digest(key.sha256, digest) else None
