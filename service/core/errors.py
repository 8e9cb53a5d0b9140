"""Every error that a person or an app can meet, with its HTTP status and its remedy.

TrimtabError
├── BadRequest            400  the request itself is wrong
│   └── BadAdapter        400  the adapter's files cannot be served
├── Unauthenticated       401  no key, or a key nobody issued
├── Forbidden             403  the key lacks the scope
├── NotFound              404  no such alias, adapter, cycle, request
├── Conflict              409  the state does not allow it now
│   ├── IllegalTransition      the cycle table has no such step
│   ├── LockedOut              the adapter was rolled back before
│   └── StaleWrite             another controller holds the lease
├── TooLarge              413  the body is over its limit
├── Overloaded            429  the queue is full: retry later
├── EngineFailed          502  the engine answered wrongly or went away
├── Unavailable           503  no ready engine, or the store is away
├── DeadlineExceeded      504  the request's own deadline passed
└── ConfigError           500  the configuration cannot be used (the CLI exits with 2)
"""

from __future__ import annotations


class TrimtabError(Exception):
    """A failure with a message for the person who meets it.

    Args:
        message: one sentence that names the cause and the remedy.
        param: the request field or setting at fault, if one is.
        retry_after_s: seconds after which trying again makes sense, if it does.
    """

    status = 500
    type = "server_error"
    code = "internal_error"

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or type(self).code
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, dict[str, str | None]]:
        """The JSON body of every error reply: OpenAI's shape."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class BadRequest(TrimtabError):
    status, type, code = 400, "invalid_request_error", "bad_request"


class BadAdapter(BadRequest):
    code = "bad_adapter"


class Unauthenticated(TrimtabError):
    status, type, code = 401, "authentication_error", "invalid_api_key"


class Forbidden(TrimtabError):
    status, type, code = 403, "permission_error", "insufficient_scope"


class NotFound(TrimtabError):
    status, type, code = 404, "not_found_error", "not_found"


class Conflict(TrimtabError):
    status, type, code = 409, "conflict_error", "conflict"


class IllegalTransition(Conflict):
    code = "illegal_transition"


class LockedOut(Conflict):
    code = "adapter_locked"


class StaleWrite(Conflict):
    code = "stale_write"


class TooLarge(TrimtabError):
    status, type, code = 413, "invalid_request_error", "request_too_large"


class Overloaded(TrimtabError):
    status, type, code = 429, "rate_limit_error", "overloaded"


class EngineFailed(TrimtabError):
    status, type, code = 502, "server_error", "engine_failed"


class Unavailable(TrimtabError):
    status, type, code = 503, "server_error", "unavailable"


class DeadlineExceeded(TrimtabError):
    status, type, code = 504, "server_error", "deadline_exceeded"


class ConfigError(TrimtabError):
    code = "config_error"


def locked_out(alias: str, adapter: str, why: str) -> LockedOut:
    """The refusal of an adapter that was rolled back."""
    return LockedOut(
        f"{adapter!r} was rolled back and is locked out: {why} Promote another one, or insist with "
        f"`trimtab promote {alias} {adapter} --force`."
    )
