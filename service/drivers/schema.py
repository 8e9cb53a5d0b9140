"""The tables. What must never be true of the data is refused here, by constraints, not by the code that writes."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Enum,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
    text,
)

from service.core.cycle import TERMINAL, CycleState, Trigger
from service.core.records import JobPhase, JobStatus

metadata = MetaData()


def _enum(kind: type[StrEnum], name: str) -> Enum:
    """Text that only takes the enum's values, and comes back as its members."""
    return Enum(
        kind,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )


def record_values(table: Table, record: object) -> dict[str, Any]:
    """The record's fields that are columns of the table."""
    return {column.name: getattr(record, column.name) for column in table.columns if hasattr(record, column.name)}


aliases = Table(
    "aliases",
    metadata,
    Column("name", String, primary_key=True),
    Column("champion", String, nullable=False),
    Column("previous", String),
    Column("candidate", String),
    Column("mirror_ratio", Double, nullable=False),
    Column("canary_ratio", Double, nullable=False),
    Column("version", Integer, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("reference_since", Double, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("latched", Boolean, nullable=False),
    CheckConstraint("mirror_ratio BETWEEN 0 AND 1", name="ck_aliases_mirror_ratio"),
    CheckConstraint("canary_ratio BETWEEN 0 AND 1", name="ck_aliases_canary_ratio"),
    CheckConstraint("failures >= 0", name="ck_aliases_failures"),
)

adapters = Table(
    "adapters",
    metadata,
    Column("name", String, primary_key=True),
    Column("alias", String, nullable=False, index=True),
    Column("digest", String(64), nullable=False),
    Column("base_digest", String(64), nullable=False),
    Column("rank", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("cycle_id", String),
    Column("manifest", JSON, nullable=False),
    Column("locked", Text),
    CheckConstraint("rank > 0", name="ck_adapters_rank"),
)

engines = Table(
    "engines",
    metadata,
    Column("url", String, primary_key=True),
    Column("ready", Boolean, nullable=False),
    Column("resident", JSON, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("base_model", String, nullable=False),
)

captures = Table(
    "captures",
    metadata,
    Column("request_id", String, primary_key=True),
    Column("at", Double, nullable=False),
    Column("alias", String, nullable=False),
    Column("adapter", String, nullable=False),
    Column("engine", String, nullable=False),
    Column("prompt", JSON, nullable=False),
    Column("reply", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("duration_s", Double, nullable=False),
    Column("ttft_s", Double),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("confidence", Double),
    Column("finish_reason", String),
    Column("streamed", Boolean, nullable=False),
    Column("source", String),
    Column("error", Text),
    Column("feedback_id", String),
    Column("labelled", Boolean, nullable=False, server_default=false()),
    Column("tags", JSON, nullable=False, server_default=text("'{}'")),
    Column("key_id", String),
    Index("ix_captures_alias_at", "alias", "at", "request_id"),
    Index("ix_captures_alias_labelled_at", "alias", "labelled", "at", "request_id"),
)
"""`feedback_id` is the request's latest feedback; `labelled`: that feedback has a target or a rating.

PostgreSQL keeps it in a table a week by `at`, and so with the key (request_id, at); see partitions.py.
"""

capture_tags = Table(
    "capture_tags",
    metadata,
    Column("request_id", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("value", String, nullable=False),
    Column("alias", String, nullable=False),
    Column("at", Double, nullable=False),
    Index("ix_capture_tags_alias_tag_at", "alias", "key", "value", "at", "request_id"),
)
"""A row for each of a request's tags: a slice's window is read along its index."""

feedback = Table(
    "feedback",
    metadata,
    Column("id", String, primary_key=True),
    Column("request_id", String, nullable=False),
    Column("at", Double, nullable=False),
    Column("rating", Double),
    Column("expected", Text),
    Column("tags", JSON, nullable=False),
    Column("source", String),
    Index("ix_feedback_request_at", "request_id", "at"),
    Index("ix_feedback_at", "at"),
    CheckConstraint("rating BETWEEN -1 AND 1", name="ck_feedback_rating"),
)

imported_rows = Table(
    "imported_rows",
    metadata,
    Column("id", String, primary_key=True),
    Column("alias", String, nullable=False),
    Column("at", Double, nullable=False),
    Column("imported_at", Double, nullable=False),
    Column("prompt", JSON, nullable=False),
    Column("target", Text, nullable=False),
    Column("source", String, nullable=False),
    Index("ix_imported_rows_alias_at", "alias", "at", "id"),
)

shadow_replies = Table(
    "shadow_replies",
    metadata,
    Column("request_id", String, primary_key=True),
    Column("candidate", String, primary_key=True),
    Column("at", Double, nullable=False),
    Column("reply", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("duration_s", Double, nullable=False),
    Column("confidence", Double),
    Column("completion_tokens", Integer, nullable=False),
    Column("error", Text),
    Index("ix_shadow_replies_at", "at"),
)

erasures = Table(
    "erasures",
    metadata,
    Column("subject", String, primary_key=True),
    Column("at", Double, nullable=False),
    Column("of", String, nullable=False, index=True),
)
"""Of whom or what no record may arrive any more: a source up to `at`, or a request; `of`: whose erasure took it."""

_ENDED = ", ".join(f"'{state}'" for state in sorted(TERMINAL))

cycles = Table(
    "cycles",
    metadata,
    Column("id", String, primary_key=True),
    Column("alias", String, ForeignKey("aliases.name", name="fk_cycles_alias"), nullable=False),
    Column("state", _enum(CycleState, "ck_cycles_state"), nullable=False),
    Column("trigger", _enum(Trigger, "ck_cycles_trigger"), nullable=False),
    Column("reason", Text, nullable=False),
    Column("opened_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("state_since", Double, nullable=False),
    Column("closed_at", Double),
    Column("candidate", String),
    Column("job_id", String),
    Column("evidence", JSON, nullable=False),
    Index("ix_cycles_alias_opened_at", "alias", "opened_at"),
    Index(
        "uq_cycles_open",
        "alias",
        unique=True,
        sqlite_where=text("closed_at IS NULL"),
        postgresql_where=text("closed_at IS NULL"),
    ),
    CheckConstraint(f"(closed_at IS NOT NULL) = (state IN ({_ENDED}))", name="ck_cycles_closed"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String, primary_key=True),
    Column("cycle_id", String, ForeignKey("cycles.id", name="fk_jobs_cycle"), nullable=False, index=True),
    Column("alias", String, nullable=False),
    Column("status", _enum(JobStatus, "ck_jobs_status"), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("phase", _enum(JobPhase, "ck_jobs_phase")),
    Column("progress", Double, nullable=False),
    Column("detail", JSON, nullable=False),
    Column("holder", String),
    Column("heartbeat_at", Double),
    Column("attempts", Integer, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("result", JSON, nullable=False),
    Column("error", Text),
    Index("ix_jobs_alias_created_at", "alias", "created_at"),
    CheckConstraint("progress BETWEEN 0 AND 1", name="ck_jobs_progress"),
    CheckConstraint("status <> 'running' OR holder IS NOT NULL", name="ck_jobs_holder"),
)

events = Table(
    "events",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("kind", String, nullable=False),
    Column("actor", String, nullable=False),
    Column("message", Text, nullable=False),
    Column("alias", String),
    Column("cycle_id", String),
    Column("evidence", JSON, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("ix_events_alias_id", "alias", "id"),
    Index("ix_events_cycle_id", "cycle_id"),
    Index("uq_events_previous", "previous", unique=True),
)
"""The audit log, a chain: no two events can follow the same one."""

audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("event_id", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
    CheckConstraint("id = 1", name="ck_audit_head_one"),
)
"""One row: the last event and its hash. Its lock is what puts the writers of events in a line."""

drift_checks = Table(
    "drift_checks",
    metadata,
    Column("id", String, primary_key=True),
    Column("alias", String, nullable=False),
    Column("at", Double, nullable=False),
    Column("verdict", String, nullable=False),
    Column("scores", JSON, nullable=False),
    Column("reasons", JSON, nullable=False),
    Column("reference_size", Integer, nullable=False),
    Column("current_size", Integer, nullable=False),
    Column("quality_reference", Double),
    Column("quality_current", Double),
    Column("report", String),
    Column("retrain", Boolean, nullable=False),
    Column("slice", String),
    Column("reference", String),
    Column("since", Double),
    Column("topics", JSON, nullable=False, server_default=text("'[]'")),
    Index("ix_drift_checks_alias_at", "alias", "at"),
)

drift_references = Table(
    "drift_references",
    metadata,
    Column("id", String, primary_key=True),
    Column("alias", String, nullable=False),
    Column("slice", String),
    Column("since", Double, nullable=False),
    Column("until", Double, nullable=False),
    Column("size", Integer, nullable=False),
    Column("made_at", Double, nullable=False),
    Column("made_by", String, nullable=False),
    Index("ix_drift_references_alias_made_at", "alias", "made_at"),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("scopes", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("revoked_at", Double),
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", Integer),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String, primary_key=True),
    Column("holder", String, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("expires_at", Double, nullable=False),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
