"""Adapters that were rolled back are locked out, with the reason."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("adapters", sa.Column("locked", sa.Text(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("adapters") as adapters:
        adapters.drop_column("locked")
