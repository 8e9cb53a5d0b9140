"""Shares of traffic by hashing a key: the same key always falls on the same side."""

from __future__ import annotations

from hashlib import blake2b

_SPAN = 2**64


def position(key: str, salt: str) -> float:
    """Where `key` falls in [0, 1), uniformly over keys and independently over salts."""
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, key=salt.encode()[:64]).digest()
    return int.from_bytes(digest, "big") / _SPAN


def in_share(key: str, ratio: float, *, salt: str) -> bool:
    """Whether `key` belongs to the share `ratio` (0..1); growing the ratio only ever adds keys."""
    return position(key, salt) < ratio
