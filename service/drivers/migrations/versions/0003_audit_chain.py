"""The audit log becomes a hash chain; events that are there already are chained as they stand."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

from service.core.audit import Link, seal
from service.core.records import Event

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_BATCH = 1000

_events = sa.table(
    "events",
    sa.column("id", sa.BigInteger),
    sa.column("at", sa.Double),
    sa.column("kind", sa.String),
    sa.column("actor", sa.String),
    sa.column("message", sa.Text),
    sa.column("alias", sa.String),
    sa.column("cycle_id", sa.String),
    sa.column("evidence", sa.JSON),
    sa.column("previous", sa.String),
    sa.column("hash", sa.String),
)
_WRITTEN = [column for column in _events.columns if column.name not in ("previous", "hash")]


def upgrade() -> None:
    op.add_column("events", sa.Column("previous", sa.String(64), nullable=True))
    op.add_column("events", sa.Column("hash", sa.String(64), nullable=True))
    head = _chain()
    table = op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.CheckConstraint("id = 1", name="ck_audit_head_one"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.bulk_insert(table, [{"id": 1, "event_id": head.event_id, "hash": head.hash}])
    with op.batch_alter_table("events") as events:
        events.alter_column("previous", existing_type=sa.String(64), nullable=False)
        events.alter_column("hash", existing_type=sa.String(64), nullable=False)
        events.create_index("uq_events_previous", ["previous"], unique=True)
        events.create_index("ix_events_cycle_id", ["cycle_id"])


def downgrade() -> None:
    op.drop_table("audit_head")
    with op.batch_alter_table("events") as events:
        events.drop_index("ix_events_cycle_id")
        events.drop_index("uq_events_previous")
        events.drop_column("hash")
        events.drop_column("previous")


def _chain() -> Link:
    """Seal every event, and say in the log that they were not sealed when they were written."""
    connection, head, count = op.get_bind(), Link(), 0
    while rows := connection.execute(
        sa.select(*_WRITTEN).where(_events.c.id > head.event_id).order_by(_events.c.id).limit(_BATCH)
    ).all():
        for row in rows:
            event = seal(Event(**row._asdict()), head)
            sealed = {"previous": event.previous, "hash": event.hash}
            connection.execute(sa.update(_events).where(_events.c.id == event.id).values(sealed))
            head, count = Link(event.id, event.hash), count + 1
    if not count:
        return head
    told = f"The {count} events before this one were chained as they stood."
    event = seal(Event(head.event_id + 1, time.time(), "audit.chained", "trimtab", told), head)
    connection.execute(sa.insert(_events).values({c.name: getattr(event, c.name) for c in _events.columns}))
    return Link(event.id, event.hash)
