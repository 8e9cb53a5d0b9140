"""What a key may use a minute, told in OpenAI's `x-ratelimit-*` headers. Each gateway process keeps its own accounts.

Token buckets (https://en.wikipedia.org/wiki/Token_bucket): a minute's worth may come at once, then it refills evenly.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.core.errors import TrimtabError
from service.core.records import Key

_MINUTE = 60.0


class RateLimited(TrimtabError):
    """The key has used what it may for now."""

    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"


@dataclass(slots=True)
class Bucket:
    """`level` of at most `size` units is left at time `at`, in seconds; it may be overdrawn."""

    size: int
    level: float
    at: float

    def refill(self, now: float) -> None:
        self.level = min(self.size, self.level + max(0.0, now - self.at) * self.size / _MINUTE)
        self.at = now

    def wait_s(self, units: float) -> float:
        """Until `units` can be taken."""
        return max(0.0, (units - self.level) * _MINUTE / self.size)


class Allowance:
    """One key's accounts; None where it has no limit."""

    def __init__(self, key: Key, now: float) -> None:
        self.limits = key.requests_per_minute, key.tokens_per_minute
        requests, tokens = self.limits
        self._requests = Bucket(requests, requests, now) if requests else None
        self._tokens = Bucket(tokens, tokens, now) if tokens else None

    def enter(self, now: float) -> None:
        """Take one request. Its tokens are charged when they are known, so a key may overdraw once and then waits.

        Raises:
            RateLimited: with the time after which the next one will be taken.
        """
        for bucket, what in ((self._requests, "requests"), (self._tokens, "tokens")):
            if bucket is not None:
                bucket.refill(now)
                if bucket.level < 1.0:
                    raise RateLimited(
                        f"The key has used its {bucket.size} {what} a minute; retry after the time in Retry-After.",
                        retry_after_s=bucket.wait_s(1.0),
                    )
        if self._requests is not None:
            self._requests.level -= 1.0

    def charge(self, tokens: int) -> None:
        if self._tokens is not None:
            self._tokens.level -= tokens

    def headers(self) -> list[tuple[bytes, bytes]]:
        told = []
        for bucket, what in ((self._requests, b"requests"), (self._tokens, b"tokens")):
            if bucket is not None:
                told += [
                    (b"x-ratelimit-limit-" + what, b"%d" % bucket.size),
                    (b"x-ratelimit-remaining-" + what, b"%d" % max(0, int(bucket.level))),
                    (b"x-ratelimit-reset-" + what, b"%.3fs" % bucket.wait_s(bucket.size)),
                ]
        return told


class Allowances:
    """The accounts of the keys that have limits; a key whose limits change begins anew."""

    def __init__(self) -> None:
        self._of: dict[str, Allowance] = {}

    def of(self, key: Key, now: float) -> Allowance | None:
        limits = key.requests_per_minute, key.tokens_per_minute
        if limits == (None, None):
            return None
        allowance = self._of.get(key.id)
        if allowance is None or allowance.limits != limits:
            allowance = self._of[key.id] = Allowance(key, now)
        return allowance
