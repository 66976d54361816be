"""The library's own tables, prefixed so that they can't clash with a user's. In: nothing. Out: SQLAlchemy tables.

Each carries the subscription, because several subscriptions may share one database. Times are ISO 8601 text in UTC:
readable in any tool, sortable, and the same in every kind of database.
"""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, LargeBinary, MetaData, Table, Text

PREFIX = "pipeline_"
METADATA = MetaData()
# Keys are compared byte by byte, as SQLite does: in the order of some language, which PostgreSQL takes otherwise, they
# would not sort by time.
KEY = Text().with_variant(Text(collation="C"), "postgresql")

# Which events are done. The primary key is what makes a second delivery of an event change nothing.
INBOX = Table(
    f"{PREFIX}inbox",
    METADATA,
    Column("subscription", KEY, primary_key=True),
    Column("event_id", KEY, primary_key=True),
    Column("event_type", Text, nullable=False),
    Column("processed_at", Text, nullable=False),
    sqlite_with_rowid=False,  # the key is the table: one B-tree to write instead of two
)

# What handlers returned that is not a row of a table of their own.
RESULT = Table(
    f"{PREFIX}result",
    METADATA,
    Column("subscription", KEY, primary_key=True),
    Column("event_id", KEY, primary_key=True),
    Column("event_type", Text, nullable=False),
    Column("value", Text, nullable=False),  # JSON
    Column("created_at", Text, nullable=False),
    sqlite_with_rowid=False,
)

# Follow-up events between commit and publish.
OUTBOX = Table(
    f"{PREFIX}outbox",
    METADATA,
    Column("subscription", KEY, primary_key=True),
    Column("key", KEY, primary_key=True),  # sorts by time; see `writes.Outgoing`
    Column("message_id", Text, nullable=False),
    Column("exchange", Text, nullable=False),
    Column("routing_key", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("properties", LargeBinary, nullable=False),
    Column("created_at", Text, nullable=False),
    sqlite_with_rowid=False,
)

# The last failure of each event that is not processed yet. Best effort: without a row here a status is poorer, no event
# is lost. An event's inbox row goes before its row here.
FAILURE = Table(
    f"{PREFIX}failure",
    METADATA,
    Column("subscription", KEY, primary_key=True),
    Column("event_id", KEY, primary_key=True),
    Column("event_type", Text, nullable=False),
    Column("state", Text, nullable=False),  # retrying | dead
    Column("attempt", Integer, nullable=False),  # that failed, from 1
    Column("next_at", Text),  # when it is tried again; none when dead
    Column("reason", Text, nullable=False),  # why it is dead: exhausted, rejected, …; "" while it is retried
    Column("error", Text, nullable=False),
    Column("at", KEY, nullable=False),
    sqlite_with_rowid=False,
)

# Worker processes that serve the subscription, as they tell of themselves every few seconds. One that ends in order
# takes its rows out.
CONSUMER = Table(
    f"{PREFIX}consumer",
    METADATA,
    Column("subscription", KEY, primary_key=True),
    Column("id", KEY, primary_key=True),
    Column("name", Text, nullable=False),
    Column("host", Text, nullable=False),  # with `process` its endpoint: a worker listens nowhere
    Column("process", Integer, nullable=False),  # its id on that host
    Column("version", Text, nullable=False),  # of this library
    Column("started", Text, nullable=False),
    Column("last_seen", KEY, nullable=False),
    sqlite_with_rowid=False,
)

# Which event types each of them has handlers for.
SUBSCRIPTION = Table(
    f"{PREFIX}subscription",
    METADATA,
    Column("subscription", KEY, primary_key=True),
    Column("consumer", KEY, primary_key=True),
    Column("event_type", KEY, primary_key=True),
    sqlite_with_rowid=False,
)

# Who may commit for a partition of an ordered subscription: the epoch grows with each owner, a commit names its own.
PARTITION = Table(
    f"{PREFIX}partition",
    METADATA,
    Column("subscription", KEY, primary_key=True),
    Column("partition", KEY, primary_key=True),  # the queue's name
    Column("epoch", Integer, nullable=False),
    Column("owner", Text, nullable=False),
    Column("taken_at", Text, nullable=False),
    sqlite_with_rowid=False,
)

# Events of ordered subscriptions that failed and are not processed: their attempts, that they are dead, and their place
# in the line of a parked key.
LINE = Table(
    f"{PREFIX}line",
    METADATA,
    Column("subscription", KEY, primary_key=True),
    Column("event_id", KEY, primary_key=True),
    Column("key", KEY, nullable=False),
    Column("state", Text, nullable=False),  # retrying | dead | parked
    Column("place", Integer, nullable=False),  # among those of its key, from 1; 0 holds nobody up
    Column("attempt", Integer, nullable=False),  # that failed last, from 1
    Column("redrives", Integer, nullable=False),  # of the copy that this is about
    Column("next_at", Text),  # when it is tried again; none unless retrying
    Column("at", KEY, nullable=False),
    Index(f"{PREFIX}line_key", "subscription", "key", "place"),
    sqlite_with_rowid=False,
)
