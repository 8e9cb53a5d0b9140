"""Requests' tags, the references that drift checks compare with, and what a check knows of topics and slices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("captures", sa.Column("tags", sa.JSON(), server_default=sa.text("'{}'"), nullable=False))
    op.create_table(
        "capture_tags",
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["request_id"], ["captures.request_id"], name="fk_capture_tags_capture", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("request_id", "key"),
    )
    op.create_index("ix_capture_tags_alias_tag_at", "capture_tags", ["alias", "key", "value", "at", "request_id"])
    op.create_table(
        "drift_references",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("slice", sa.String(), nullable=True),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("made_at", sa.Double(), nullable=False),
        sa.Column("made_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_drift_references_alias_made_at", "drift_references", ["alias", "made_at"])
    op.add_column("drift_checks", sa.Column("slice", sa.String(), nullable=True))
    op.add_column("drift_checks", sa.Column("reference", sa.String(), nullable=True))
    op.add_column("drift_checks", sa.Column("since", sa.Double(), nullable=True))
    op.add_column("drift_checks", sa.Column("topics", sa.JSON(), server_default=sa.text("'[]'"), nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("drift_checks") as checks:
        for name in ("topics", "since", "reference", "slice"):
            checks.drop_column(name)
    op.drop_table("drift_references")
    op.drop_table("capture_tags")
    with op.batch_alter_table("captures") as captures:
        captures.drop_column("tags")
