"""What the store keeps, as values. Times are Unix seconds; digests are SHA-256 in lower-case hex."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from service.core.cycle import TERMINAL, CycleState, Trigger
from service.core.names import BASE

Message = Mapping[str, Any]
"""One chat message as the client sent it: `role`, `content`."""


class Scope(StrEnum):
    """What a key may do."""

    INFER = "infer"
    FEEDBACK = "feedback"
    ADMIN = "admin"
    METRICS = "metrics"


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobPhase(StrEnum):
    """What a running job is doing: the controller mirrors it into the cycle's state."""

    DATASET = "dataset"
    TRAINING = "training"
    EVALUATING = "evaluating"
    PUBLISHING = "publishing"


@dataclass(frozen=True, slots=True)
class Key:
    """An API key as stored: the secret itself is never kept, only its SHA-256."""

    id: str
    name: str
    sha256: str
    scopes: frozenset[Scope]
    created_at: float
    revoked_at: float | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Adapter:
    """An immutable LoRA delta. `name` is `alias@12hex` of `digest`, and its prefix in the adapter store.

    `locked` tells why it was rolled back: it is not promoted again unless a person insists.
    """

    name: str
    alias: str
    digest: str
    base_digest: str
    rank: int
    size_bytes: int
    created_at: float
    cycle_id: str | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    locked: str | None = None


@dataclass(frozen=True, slots=True)
class Alias:
    """The stable name that apps send, and what stands behind it now.

    `champion` is an adapter's name or `base`; `previous` is what a rollback returns to, None before the first
    promotion; `version` grows by one with every change and orders what gateways see.
    `reference_since` is when the traffic that drift is compared against begins.
    """

    name: str
    champion: str = BASE
    previous: str | None = None
    candidate: str | None = None
    mirror_ratio: float = 0.0
    canary_ratio: float = 0.0
    version: int = 0
    updated_at: float = 0.0
    reference_since: float = 0.0
    failures: int = 0
    latched: bool = False


@dataclass(frozen=True, slots=True)
class Cycle:
    """One improvement attempt. `evidence` grows as the cycle goes: drift, dataset, evaluation, shadow, watching."""

    id: str
    alias: str
    state: CycleState
    trigger: Trigger
    reason: str
    opened_at: float
    updated_at: float
    state_since: float
    closed_at: float | None = None
    candidate: str | None = None
    job_id: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        return self.state not in TERMINAL


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the audit log: who or what did something, why, and on what evidence.

    `previous` and `hash` make it a link of a chain; see core/audit.py.
    """

    id: int
    at: float
    kind: str
    actor: str
    message: str
    alias: str | None = None
    cycle_id: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    previous: str = ""
    hash: str = ""


@dataclass(slots=True)
class Capture:
    """One inference that a client received, as it was served. Not frozen, which would cost 2 µs of each request.

    `adapter` is the name that served it (or `base`); `confidence` is the mean log-probability (nats a token) of the
    reply, None when the engine gave none; `prompt` is the message list of a chat, or one user message for a completion;
    `tags` are those of the request's metadata by which the operator slices; `source` is the user, else the key that
    asked, `key_id` the key in any case.
    """

    request_id: str
    at: float
    alias: str
    adapter: str
    engine: str
    prompt: Sequence[Message]
    reply: str
    status: int
    duration_s: float
    ttft_s: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    confidence: float | None = None
    finish_reason: str | None = None
    streamed: bool = False
    source: str | None = None
    error: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class ShadowReply:
    """The candidate's answer to a request that the champion had already answered. Never shown, never trained on."""

    request_id: str
    candidate: str
    at: float
    reply: str
    status: int
    duration_s: float
    confidence: float | None = None
    completion_tokens: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """A user's signal on one reply. `rating` is -1..1; `expected` is the target, the reply that would have been right.

    `id` is a digest of the content, so the same feedback sent twice is one row. `source` names what a person imported
    the signal from, None for one that a client sent.
    """

    id: str
    request_id: str
    at: float
    rating: float | None = None
    expected: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    source: str | None = None


@dataclass(frozen=True, slots=True)
class ImportedRow:
    """An example that a person imported: a prompt with its target, never served. `source` is what it came from.

    `id` is a digest of alias and content, so that the same row imported twice is one; `at` is its own time where it
    bore one, else that of the import.
    """

    id: str
    alias: str
    at: float
    imported_at: float
    prompt: Sequence[Message]
    target: str
    source: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What an erasure goes by: a request, whose it was and when."""

    request_id: str
    source: str | None
    at: float


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased of a subject: all marks that it ever had, and the rows that went this time."""

    request_ids: Sequence[str]
    captures: int
    feedback: int
    shadow_replies: int


@dataclass(frozen=True, slots=True)
class Labelled:
    """A capture with its latest feedback, or None where none came."""

    capture: Capture
    feedback: Feedback | None


@dataclass(frozen=True, slots=True)
class PairedReply:
    """A labelled request with the champion's reply and the candidate's shadow reply."""

    capture: Capture
    feedback: Feedback
    shadow: ShadowReply


@dataclass(frozen=True, slots=True)
class AnsweredTwice:
    """A request with the champion's reply and what became of the candidate's."""

    capture: Capture
    shadow: ShadowReply


@dataclass(frozen=True, slots=True)
class DriftCheck:
    """One verdict of the drift worker. `scores` holds one entry a detector: score, threshold, kind, what moved.

    `retrain` is the impact gate's answer: the drift costs quality, so it is worth a cycle. `slice` is the tag
    (`key=value`) whose requests alone were judged, `reference` the id of the reference they were compared with, `since`
    when the drift began (Unix seconds), as far as that can be told; `topics` what the new requests are about.
    """

    id: str
    alias: str
    at: float
    verdict: str
    scores: Sequence[Mapping[str, Any]]
    reasons: Sequence[str]
    reference_size: int
    current_size: int
    quality_reference: float | None = None
    quality_current: float | None = None
    report: str | None = None
    retrain: bool = False
    slice: str | None = None
    reference: str | None = None
    since: float | None = None
    topics: Sequence[Mapping[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class DriftReference:
    """A version of an alias's (or a slice's) reference: the first `size` successful requests after `since`.

    `id` is a digest of those requests' ids; `until` is when the last of them came, `made_by` what chose them.
    """

    id: str
    alias: str
    since: float
    until: float
    size: int
    made_at: float
    made_by: str
    slice: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A retraining job. `progress` is 0..1; `detail` is what a person wants to see (loss, tokens/s, step)."""

    id: str
    cycle_id: str
    alias: str
    status: JobStatus
    created_at: float
    updated_at: float
    phase: JobPhase | None = None
    progress: float = 0.0
    detail: Mapping[str, Any] = field(default_factory=dict)
    holder: str | None = None
    heartbeat_at: float | None = None
    attempts: int = 0
    spec: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None

    @property
    def queued_at(self) -> float:
        """Since when a queued job has waited for a process: it may have had one before."""
        return float(self.detail.get("queued_at", self.created_at))


@dataclass(frozen=True, slots=True)
class EngineView:
    """What the controller last saw of an engine: the adapters it verified as resident there, by name."""

    url: str
    ready: bool
    resident: frozenset[str]
    seen_at: float
    base_model: str


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to act, until `expires_at`. A later holder has a larger `epoch`; the store refuses a smaller one."""

    name: str
    holder: str
    epoch: int
    expires_at: float
