"""Names: an alias moves, an adapter's name is its content and never does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b

from service.core.errors import BadRequest

BASE = "base"
"""What an alias serves before it has an adapter, and what `x-trimtab-adapter` says then."""

DIGEST_HEX = 12

_ALIAS = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ADAPTER = re.compile(rf"({_ALIAS.pattern})@([0-9a-f]{{{DIGEST_HEX}}})")


@dataclass(frozen=True, slots=True)
class AdapterName:
    """`support@3fa9c1d2e4b5`: the alias it was made for and the first 12 hex digits of its SHA-256."""

    alias: str
    digest12: str

    def __str__(self) -> str:
        return f"{self.alias}@{self.digest12}"


def check_alias(name: str) -> str:
    """Return `name` if it may name an alias; raise BadRequest otherwise."""
    if name == BASE or not _ALIAS.fullmatch(name):
        raise BadRequest(
            f"{name!r} cannot name an alias: use 1 to 63 of a-z, 0-9, '.', '_', '-', "
            f"starting with a letter or digit, and not {BASE!r}.",
            param="alias",
            code="invalid_alias",
        )
    return name


def adapter_name(alias: str, sha256: str) -> AdapterName:
    """Name an adapter by its content; raise BadRequest for a malformed alias or digest."""
    if not _SHA256.fullmatch(sha256):
        raise BadRequest(f"{sha256!r} is not a SHA-256 in lower-case hex.", param="digest")
    return AdapterName(check_alias(alias), sha256[:DIGEST_HEX])


def parse_adapter(text: str) -> AdapterName:
    """Read `alias@12hex`; raise BadRequest for anything else."""
    match = _ADAPTER.fullmatch(text)
    if match is None:
        raise BadRequest(f"{text!r} is not an adapter name: expected alias@{DIGEST_HEX} hex digits.", param="adapter")
    return AdapterName(match[1], match[2])


def job_name(cycle_id: str) -> str:
    """The id of a cycle's job."""
    return f"{cycle_id}-job"


def user_source(user: str) -> str:
    """Whose a request is, as its capture names it: the client's `user`, hashed."""
    return f"user:{blake2b(user.encode(), digest_size=8).hexdigest()}"


def is_adapter(text: str) -> bool:
    """Whether `text` has the form of an adapter name."""
    return _ADAPTER.fullmatch(text) is not None
