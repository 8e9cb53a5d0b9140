"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "adapters",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("base_digest", sa.String(length=64), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("cycle_id", sa.String(), nullable=True),
        sa.Column("manifest", sa.JSON(), nullable=False),
        sa.CheckConstraint("rank > 0", name="ck_adapters_rank"),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("ix_adapters_alias", "adapters", ["alias"], unique=False)
    op.create_table(
        "aliases",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("champion", sa.String(), nullable=False),
        sa.Column("previous", sa.String(), nullable=True),
        sa.Column("candidate", sa.String(), nullable=True),
        sa.Column("mirror_ratio", sa.Double(), nullable=False),
        sa.Column("canary_ratio", sa.Double(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("reference_since", sa.Double(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("latched", sa.Boolean(), nullable=False),
        sa.CheckConstraint("canary_ratio BETWEEN 0 AND 1", name="ck_aliases_canary_ratio"),
        sa.CheckConstraint("failures >= 0", name="ck_aliases_failures"),
        sa.CheckConstraint("mirror_ratio BETWEEN 0 AND 1", name="ck_aliases_mirror_ratio"),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "captures",
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("adapter", sa.String(), nullable=False),
        sa.Column("engine", sa.String(), nullable=False),
        sa.Column("prompt", sa.JSON(), nullable=False),
        sa.Column("reply", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("duration_s", sa.Double(), nullable=False),
        sa.Column("ttft_s", sa.Double(), nullable=True),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("completion_tokens", sa.Integer(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=True),
        sa.Column("finish_reason", sa.String(), nullable=True),
        sa.Column("streamed", sa.Boolean(), nullable=False),
        sa.Column("source", sa.String(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("feedback_id", sa.String(), nullable=True),
        sa.Column("labelled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("request_id"),
    )
    op.create_index("ix_captures_alias_at", "captures", ["alias", "at", "request_id"], unique=False)
    op.create_index(
        "ix_captures_alias_labelled_at", "captures", ["alias", "labelled", "at", "request_id"], unique=False
    )
    op.create_table(
        "drift_checks",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("scores", sa.JSON(), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("reference_size", sa.Integer(), nullable=False),
        sa.Column("current_size", sa.Integer(), nullable=False),
        sa.Column("quality_reference", sa.Double(), nullable=True),
        sa.Column("quality_current", sa.Double(), nullable=True),
        sa.Column("report", sa.String(), nullable=True),
        sa.Column("retrain", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_drift_checks_alias_at", "drift_checks", ["alias", "at"], unique=False)
    op.create_table(
        "engines",
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("ready", sa.Boolean(), nullable=False),
        sa.Column("resident", sa.JSON(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("base_model", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("url"),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("alias", sa.String(), nullable=True),
        sa.Column("cycle_id", sa.String(), nullable=True),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_events_alias_id", "events", ["alias", "id"], unique=False)
    op.create_table(
        "feedback",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("rating", sa.Double(), nullable=True),
        sa.Column("expected", sa.Text(), nullable=True),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.CheckConstraint("rating BETWEEN -1 AND 1", name="ck_feedback_rating"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_feedback_request_at", "feedback", ["request_id", "at"], unique=False)
    op.create_table(
        "keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("sha256"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "secrets",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "shadow_replies",
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("candidate", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("reply", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("duration_s", sa.Double(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=True),
        sa.Column("completion_tokens", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("request_id", "candidate"),
    )
    op.create_table(
        "cycles",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "open",
                "training",
                "evaluating",
                "shadowing",
                "canary",
                "promoting",
                "watching",
                "done",
                "rejected",
                "failed",
                "rolled_back",
                name="ck_cycles_state",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column(
            "trigger",
            sa.Enum(
                "drift",
                "person",
                "schedule",
                "alert",
                "labels",
                name="ck_cycles_trigger",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("state_since", sa.Double(), nullable=False),
        sa.Column("closed_at", sa.Double(), nullable=True),
        sa.Column("candidate", sa.String(), nullable=True),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.CheckConstraint(
            "(closed_at IS NOT NULL) = (state IN ('done', 'failed', 'rejected', 'rolled_back'))",
            name="ck_cycles_closed",
        ),
        sa.ForeignKeyConstraint(["alias"], ["aliases.name"], name="fk_cycles_alias"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_cycles_alias_opened_at", "cycles", ["alias", "opened_at"], unique=False)
    op.create_index(
        "uq_cycles_open",
        "cycles",
        ["alias"],
        unique=True,
        sqlite_where=sa.text("closed_at IS NULL"),
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("cycle_id", sa.String(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "queued",
                "running",
                "succeeded",
                "failed",
                "cancelled",
                name="ck_jobs_status",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column(
            "phase",
            sa.Enum(
                "dataset",
                "training",
                "evaluating",
                "publishing",
                name="ck_jobs_phase",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=True,
        ),
        sa.Column("progress", sa.Double(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("holder", sa.String(), nullable=True),
        sa.Column("heartbeat_at", sa.Double(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint("status <> 'running' OR holder IS NOT NULL", name="ck_jobs_holder"),
        sa.CheckConstraint("progress BETWEEN 0 AND 1", name="ck_jobs_progress"),
        sa.ForeignKeyConstraint(["cycle_id"], ["cycles.id"], name="fk_jobs_cycle"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_jobs_alias_created_at", "jobs", ["alias", "created_at"], unique=False)
    op.create_index("ix_jobs_cycle_id", "jobs", ["cycle_id"], unique=False)


def downgrade() -> None:
    for table in (
        "jobs",
        "cycles",
        "shadow_replies",
        "secrets",
        "leases",
        "keys",
        "feedback",
        "events",
        "engines",
        "drift_checks",
        "captures",
        "aliases",
        "adapters",
    ):
        op.drop_table(table)
