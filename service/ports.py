"""What the rooms ask of the world. Drivers implement it; one contract suite runs on every implementation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from service.core.audit import Audit
from service.core.cycle import CycleState, Trigger
from service.core.records import (
    Adapter,
    Alias,
    AnsweredTwice,
    Capture,
    Cycle,
    DriftCheck,
    DriftReference,
    EngineView,
    Erased,
    Event,
    Feedback,
    ImportedRow,
    Job,
    JobPhase,
    Key,
    Labelled,
    Lease,
    PairedReply,
    Seen,
    ShadowReply,
)
from service.core.routing import RoutingTable


class Clock(Protocol):
    """Time, so that tests can hold it still."""

    def now(self) -> float:
        """Unix seconds, UTC."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""


class Registry(Protocol):
    """Adapters, aliases and what engines hold.

    Every method that changes an alias writes its audit event in the same transaction and raises NotFound for an
    unknown alias. `fence`, where given, is the caller's lease: StaleWrite if a later holder exists.
    """

    async def add_alias(self, name: str, *, champion: str = "base", now: float) -> Alias:
        """Create the alias if it is not there; return it either way."""

    async def alias(self, name: str) -> Alias: ...

    async def aliases(self) -> Sequence[Alias]: ...

    async def add_adapter(self, adapter: Adapter) -> None:
        """Register an adapter; the same name with the same digest again is no change, with another: Conflict."""

    async def adapter(self, name: str) -> Adapter: ...

    async def adapters(self, alias: str | None = None) -> Sequence[Adapter]:
        """Newest first."""

    async def remove_adapter(
        self, name: str, *, actor: str, reason: str, now: float, fence: Lease | None = None
    ) -> None:
        """Forget an adapter; Conflict while an alias serves it, would return to it or has it in shadow, or while an
        open cycle is proving it."""

    async def set_candidate(
        self,
        alias: str,
        candidate: str | None,
        *,
        mirror_ratio: float,
        now: float,
        canary_ratio: float = 0.0,
        fence: Lease | None = None,
    ) -> Alias:
        """Put `candidate` in shadow at `mirror_ratio`, let it answer `canary_ratio` of the clients; or clear it."""

    async def promote(
        self,
        alias: str,
        adapter: str,
        *,
        actor: str,
        reason: str,
        now: float,
        reverse_ratio: float = 0.0,
        force: bool = False,
        fence: Lease | None = None,
    ) -> Alias:
        """Flip: champion becomes previous, `adapter` champion, the candidate none, the reference starts anew.

        With `reverse_ratio` the champion before answers that share in shadow from now on: it becomes the candidate.
        LockedOut for an adapter that was rolled back, unless a person's `force` says so, which frees it.
        What is champion already stays so. With a fence (a controller promotes): Conflict unless `adapter` still is the
        candidate, for somebody may have rolled it back meanwhile.
        """

    async def rollback(
        self, alias: str, *, actor: str, reason: str, now: float, lock: bool = False, fence: Lease | None = None
    ) -> Alias:
        """Swap champion and previous, clear the candidate and end an open cycle as `rolled_back`, in one transaction.

        `lock` locks out what was champion. LockedOut where the previous one is: no cycle is open, and it was left for
        its faults.
        With an open cycle that has not promoted yet, only that cycle ends and the champion stays.
        A controller's own (`fence` is given) counts as a failure.
        Raises Conflict when there is neither an open cycle nor a previous adapter.
        """

    async def set_health(
        self, alias: str, *, failures: int, latched: bool, now: float, fence: Lease | None = None
    ) -> Alias:
        """Record failures in a row and the latch (a person clears it)."""

    async def report_engines(self, engines: Sequence[EngineView], *, fence: Lease | None = None) -> None:
        """Replace what is known of all engines."""

    async def routing(self) -> RoutingTable:
        """The snapshot that gateways serve from; cheap enough to be read several times a second."""


class Traffic(Protocol):
    """Captures, shadow replies and feedback. Writes are idempotent: a batch may arrive twice."""

    async def add_captures(self, captures: Sequence[Capture]) -> None: ...

    async def add_shadow_replies(self, replies: Sequence[ShadowReply]) -> None: ...

    async def add_feedback(self, feedback: Sequence[Feedback]) -> None:
        """May come before its capture, late, or twice; the latest one of a request is the one that counts."""

    async def window(
        self,
        alias: str,
        *,
        since: float,
        until: float | None = None,
        limit: int,
        newest: bool = False,
        labelled_only: bool = False,
        tag: str | None = None,
    ) -> Sequence[Labelled]:
        """Successful captures with `since` < at ≤ `until`, in order of time: the first `limit`, or the newest.

        With a `tag` (`key=value`) only those that bear it.
        """

    async def tags(self, alias: str, key: str, *, limit: int) -> Sequence[str]:
        """The first `limit` tags (`key=value`, in order) of this key that any request of the alias bears."""

    async def paired(self, alias: str, candidate: str, *, since: float, limit: int) -> Sequence[PairedReply]:
        """Requests after `since` that have a champion's reply, the candidate's shadow reply and feedback with a
        target or a rating, in order of time."""

    async def beside(self, alias: str, candidate: str, *, since: float, limit: int) -> Sequence[AnsweredTwice]:
        """Requests after `since` that clients got an answer to and that the candidate was asked too, in order of time:
        labelled or not, and whatever became of the shadow."""

    async def failed(self, alias: str, adapter: str, *, since: float, limit: int) -> Sequence[bool]:
        """Whether each request to the adapter after `since` ended in an error of the server's, in order of time."""

    async def capture(self, request_id: str) -> Labelled: ...

    async def count(self, alias: str, *, since: float, labelled_only: bool = False) -> int: ...


class Erasures(Protocol):
    """What leaves the store for good."""

    async def erase(self, subject: str, *, actor: str, now: float) -> Erased:
        """Delete all traffic of a source (`user:…`, `key:…`: what it sent up to `now`; `import:…`) or of one request.

        What of it arrives later is dropped too. Example texts in drift checks since then go along. Again is no harm.
        """

    async def erased(self, seen: Sequence[Seen]) -> frozenset[str]:
        """The ids of those that an erasure took."""

    async def expire(self, alias: str, *, before: float, keep: int | None, limit: int) -> int:
        """Delete up to `limit` of the alias's oldest requests, with all that belongs to them: those up to `before`,
        and those beyond the newest `keep`. Returns how many."""

    async def expire_strays(self, *, before: float, limit: int) -> int:
        """Delete feedback and shadow replies up to `before` whose request is not there. Returns how many."""


class Partitions(Protocol):
    """Where captures lie."""

    async def tend_partitions(self, *, now: float) -> None:
        """Make room for the captures of the next weeks, and give back that of weeks that are empty and over."""


class Imports(Protocol):
    """Examples that people import."""

    async def add_imported(self, rows: Sequence[ImportedRow]) -> int:
        """Add those that are not there and were not erased; how many that were."""

    async def imported(
        self, alias: str, *, since: float, until: float | None = None, limit: int
    ) -> Sequence[ImportedRow]:
        """The newest rows with `since` < at ≤ `until`, in order of time."""

    async def imported_row(self, row_id: str) -> ImportedRow: ...


class Cycles(Protocol):
    """Cycles and drift checks."""

    async def open_cycle(
        self,
        cycle_id: str,
        alias: str,
        trigger: Trigger,
        *,
        reason: str,
        evidence: Mapping[str, Any],
        now: float,
        actor: str,
        fence: Lease | None = None,
    ) -> Cycle:
        """Raises Conflict when the alias has an open cycle."""

    async def advance(
        self,
        cycle: Cycle,
        to: CycleState,
        *,
        reason: str,
        now: float,
        actor: str = "controller",
        evidence: Mapping[str, Any] | None = None,
        candidate: str | None = None,
        job_id: str | None = None,
        fence: Lease | None = None,
    ) -> Cycle:
        """Move the cycle on from exactly `cycle.state` and write the event; merge `evidence` into the cycle's.

        A cycle that ends, by this or by a rollback, takes its unfinished jobs with it: they are cancelled.
        One that ends otherwise than as `done` counts, in the same transaction, as one of its alias's failures in a row.
        Raises IllegalTransition where the table has no such step, and Conflict when the cycle has moved meanwhile.
        """

    async def note_evidence(
        self,
        cycle: Cycle,
        evidence: Mapping[str, Any],
        *,
        now: float,
        kind: str | None = None,
        message: str = "",
        actor: str = "controller",
        fence: Lease | None = None,
    ) -> Cycle:
        """Merge `evidence` without a change of state; with a `kind`, write such an event in the same transaction."""

    async def cycle(self, cycle_id: str) -> Cycle: ...

    async def cycles(self, alias: str | None = None, *, open_only: bool = False, limit: int = 50) -> Sequence[Cycle]:
        """Newest first."""

    async def add_drift_check(self, check: DriftCheck) -> None: ...

    async def drift_checks(
        self, alias: str | None = None, *, limit: int = 50, slice: str | None = None, verdict: str | None = None
    ) -> Sequence[DriftCheck]:
        """Newest first; of all of an alias's requests, or of one of its slices."""

    async def add_drift_reference(self, reference: DriftReference) -> None:
        """The same id again makes it the newest, by whoever made it so."""

    async def drift_references(
        self, alias: str, *, limit: int = 50, slice: str | None = None
    ) -> Sequence[DriftReference]:
        """Newest first."""


class AuditLog(Protocol):
    """What happened and why, as a hash chain. Who changes an alias or a cycle writes its event with the change."""

    async def add_event(
        self,
        kind: str,
        *,
        actor: str,
        message: str,
        now: float,
        alias: str | None = None,
        cycle_id: str | None = None,
        evidence: Mapping[str, Any] | None = None,
        fence: Lease | None = None,
    ) -> None: ...

    async def events(
        self,
        alias: str | None = None,
        *,
        after_id: int = 0,
        limit: int | None = 100,
        cycle_id: str | None = None,
        kinds: Sequence[str] = (),
    ) -> Sequence[Event]:
        """Newest first; of one alias, of one cycle, of some kinds."""

    async def verify_audit(self, *, noted: str | None = None) -> Audit:
        """Check the whole chain, and that it explains what every alias serves.

        `noted` is the hash of an earlier head, which the chain must still hold.
        """


class Jobs(Protocol):
    """The queue of retraining jobs. Only the holder of a job may report on it."""

    async def enqueue(self, job: Job, *, fence: Lease | None = None) -> None:
        """The same id again is no change."""

    async def requeue(self, job: Job, *, reason: str, actor: str, now: float, fence: Lease | None = None) -> Job:
        """Free the job of a holder that is gone, with an event; Conflict when it has been heard of since `job`."""

    async def job(self, job_id: str) -> Job: ...

    async def jobs(self, alias: str | None = None, *, limit: int = 20) -> Sequence[Job]: ...

    async def claim(self, job_id: str, holder: str, *, now: float, stale_after_s: float) -> Job:
        """Take a queued job, or a running one whose heartbeat is older than `stale_after_s`; Conflict otherwise."""

    async def report(
        self, job_id: str, holder: str, *, phase: JobPhase, progress: float, detail: Mapping[str, Any], now: float
    ) -> None:
        """Progress and heartbeat in one; StaleWrite when `holder` no longer holds the job or it was cancelled."""

    async def finish(self, job_id: str, holder: str, *, result: Mapping[str, Any], now: float) -> None: ...

    async def fail(self, job_id: str, holder: str | None, *, error: str, now: float) -> None:
        """`holder` None: the controller ends a job whose process is gone."""

    async def cancel(self, job_id: str, *, now: float) -> None: ...


class Access(Protocol):
    """Keys, leases and the secret that signs request ids."""

    async def add_key(self, key: Key) -> None: ...

    async def keys(self) -> Sequence[Key]: ...

    async def revoke_key(self, key_id: str, *, now: float) -> None: ...

    async def secret(self, name: str) -> bytes:
        """32 random bytes, made on first use and the same for every process afterwards."""

    async def acquire(self, name: str, holder: str, *, ttl_s: float, now: float) -> Lease | None:
        """Take or renew a lease; None while somebody else's has not expired. A new holder gets epoch + 1.

        `now` and `ttl_s` are the caller's own; clocks that differ cost time, never safety: that is the epoch's work.
        """


class Store(Registry, Traffic, Erasures, Partitions, Imports, Cycles, AuditLog, Jobs, Access, Protocol):
    """Everything the loop knows."""

    async def ping(self) -> None:
        """Raise Unavailable when the store cannot be reached."""

    async def close(self) -> None: ...


class Engine(Protocol):
    """One vLLM server, by URL. Failures raise EngineFailed or Unavailable."""

    url: str

    async def ready(self) -> bool: ...

    async def models(self) -> tuple[str, frozenset[str]]:
        """The base model's served name and the resident adapters' names."""

    async def load(self, name: str, path: str) -> None:
        """Load an adapter under its immutable name; already loaded is success."""

    async def unload(self, name: str) -> None:
        """Absent already is success."""

    async def warm(self, model: str) -> None:
        """One short completion, so that the first client does not pay for the first use."""


class Blobs(Protocol):
    """Adapter files by digest; `local` gives a folder that an engine on this machine can read."""

    async def put(self, prefix: str, files: Mapping[str, bytes]) -> None:
        """Write all files under `prefix`, whole or not at all."""

    async def get(self, prefix: str, name: str) -> bytes: ...

    async def list(self, prefix: str) -> Sequence[str]: ...

    async def delete(self, prefix: str) -> None: ...

    async def local(self, prefix: str) -> str:
        """A local folder with the files of `prefix`, fetched if need be."""

    async def tidy(self) -> None:
        """Remove from this machine what writers that died have left half-done."""
