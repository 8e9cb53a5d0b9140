"""On PostgreSQL captures lie in a table a week; what is there becomes the first of them, without being copied.

Tags no longer point to their captures: no key of a partitioned table is without its time.
"""

from __future__ import annotations

import time

from alembic import op

revision = "0040"
down_revision = "0030"
branch_labels = None
depends_on = None

WEEK_S = 604_800

_INDEXES = {
    "alias_at": "alias, at, request_id",
    "alias_labelled_at": "alias, labelled, at, request_id",
}


def upgrade() -> None:
    with op.batch_alter_table("capture_tags") as tags:
        tags.drop_constraint("fk_capture_tags_capture", type_="foreignkey")
    if op.get_bind().dialect.name != "postgresql":
        return
    # The week after the next one: whoever runs the version before until then still writes into the old table.
    until = (int(time.time()) // WEEK_S + 2) * WEEK_S
    op.execute("ALTER TABLE captures RENAME TO captures_before")
    op.execute("ALTER TABLE captures_before DROP CONSTRAINT captures_pkey")
    op.execute("ALTER TABLE captures_before ADD CONSTRAINT captures_before_pkey PRIMARY KEY (request_id, at)")
    op.execute("CREATE TABLE captures (LIKE captures_before INCLUDING DEFAULTS) PARTITION BY RANGE (at)")
    op.execute("ALTER TABLE captures ADD CONSTRAINT captures_pkey PRIMARY KEY (request_id, at)")
    for name, columns in _INDEXES.items():
        op.execute(f"ALTER INDEX ix_captures_{name} RENAME TO ix_captures_before_{name}")
        op.execute(f"CREATE INDEX ix_captures_{name} ON captures ({columns})")
    op.execute("CREATE TABLE captures_rest PARTITION OF captures DEFAULT")
    # Of a gateway whose clock is far ahead.
    op.execute(
        f"WITH ahead AS (DELETE FROM captures_before WHERE at >= {until} RETURNING *) "
        "INSERT INTO captures SELECT * FROM ahead"
    )
    op.execute(f"ALTER TABLE captures ATTACH PARTITION captures_before FOR VALUES FROM (MINVALUE) TO ({until})")


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("CREATE TABLE captures_whole (LIKE captures INCLUDING DEFAULTS)")
        op.execute("INSERT INTO captures_whole SELECT * FROM captures")
        op.execute("DROP TABLE captures")
        op.execute("ALTER TABLE captures_whole RENAME TO captures")
        op.execute("ALTER TABLE captures ADD CONSTRAINT captures_pkey PRIMARY KEY (request_id)")
        for name, columns in _INDEXES.items():
            op.execute(f"CREATE INDEX ix_captures_{name} ON captures ({columns})")
    with op.batch_alter_table("capture_tags") as tags:
        tags.create_foreign_key(
            "fk_capture_tags_capture", "captures", ["request_id"], ["request_id"], ondelete="CASCADE"
        )
