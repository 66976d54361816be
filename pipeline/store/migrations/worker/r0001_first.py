"""The workers' tables as they were first released.

A database whose tables were made before there were revisions has some or all of them: what is there stays.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "worker_0001"
down_revision = None
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make them."""
    _table(
        "pipeline_inbox",
        sa.Column("subscription", KEY, primary_key=True),
        sa.Column("event_id", KEY, primary_key=True),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("processed_at", sa.Text, nullable=False),
    )
    _table(
        "pipeline_result",
        sa.Column("subscription", KEY, primary_key=True),
        sa.Column("event_id", KEY, primary_key=True),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
    )
    _table(
        "pipeline_outbox",
        sa.Column("subscription", KEY, primary_key=True),
        sa.Column("key", KEY, primary_key=True),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("exchange", sa.Text, nullable=False),
        sa.Column("routing_key", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("properties", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
    )
    _table(
        "pipeline_failure",
        sa.Column("subscription", KEY, primary_key=True),
        sa.Column("event_id", KEY, primary_key=True),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("next_at", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("at", KEY, nullable=False),
    )
    _table(
        "pipeline_consumer",
        sa.Column("subscription", KEY, primary_key=True),
        sa.Column("id", KEY, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("process", sa.Integer, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("started", sa.Text, nullable=False),
        sa.Column("last_seen", KEY, nullable=False),
    )
    _table(
        "pipeline_subscription",
        sa.Column("subscription", KEY, primary_key=True),
        sa.Column("consumer", KEY, primary_key=True),
        sa.Column("event_type", KEY, primary_key=True),
    )
    _table(
        "pipeline_partition",
        sa.Column("subscription", KEY, primary_key=True),
        sa.Column("partition", KEY, primary_key=True),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("taken_at", sa.Text, nullable=False),
    )
    _table(
        "pipeline_line",
        sa.Column("subscription", KEY, primary_key=True),
        sa.Column("event_id", KEY, primary_key=True),
        sa.Column("key", KEY, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("redrives", sa.Integer, nullable=False),
        sa.Column("next_at", sa.Text),
        sa.Column("at", KEY, nullable=False),
    )
    op.create_index("pipeline_line_key", "pipeline_line", ["subscription", "key", "place"], if_not_exists=True)


def _table(name: str, *columns: sa.Column[object]) -> None:
    op.create_table(name, *columns, if_not_exists=True, sqlite_with_rowid=False)
