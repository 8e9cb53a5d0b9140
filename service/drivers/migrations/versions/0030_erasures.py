"""Whose traffic was erased, and the way to the oldest feedback and shadow replies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "erasures",
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("of", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("subject"),
    )
    op.create_index("ix_erasures_of", "erasures", ["of"])
    op.create_index("ix_feedback_at", "feedback", ["at"])
    op.create_index("ix_shadow_replies_at", "shadow_replies", ["at"])


def downgrade() -> None:
    op.drop_index("ix_shadow_replies_at", "shadow_replies")
    op.drop_index("ix_feedback_at", "feedback")
    op.drop_table("erasures")
