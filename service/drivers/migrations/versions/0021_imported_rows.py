"""Examples that people import, who gave a label, and the key that a request came with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("captures", sa.Column("key_id", sa.String(), nullable=True))
    op.add_column("feedback", sa.Column("source", sa.String(), nullable=True))
    op.create_table(
        "imported_rows",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("imported_at", sa.Double(), nullable=False),
        sa.Column("prompt", sa.JSON(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_imported_rows_alias_at", "imported_rows", ["alias", "at", "id"])


def downgrade() -> None:
    op.drop_table("imported_rows")
    with op.batch_alter_table("feedback") as feedback:
        feedback.drop_column("source")
    with op.batch_alter_table("captures") as captures:
        captures.drop_column("key_id")
