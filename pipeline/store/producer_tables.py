"""The producer's tables: what the gateway accepted, what of it waits to be published, keys, leases. Out: tables.

They are apart from the workers' (`tables.py`): the front door has a database of its own. Times are ISO 8601 text in
UTC, as there.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Identity, Index, Integer, LargeBinary, MetaData, Table, Text

from pipeline.store.tables import KEY, PREFIX

PRODUCER_METADATA = MetaData()

# Every event that was accepted, for as long as it is kept. The primary key is what makes a repeated request one event.
EVENT = Table(
    f"{PREFIX}event",
    PRODUCER_METADATA,
    Column("id", KEY, primary_key=True),
    Column("type", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("subject", Text),
    Column("time", Text, nullable=False),
    Column("payload", Text, nullable=False),  # JSON as it was accepted
    Column("status", Text, nullable=False),  # accepted | published
    Column("fingerprint", LargeBinary, nullable=False),  # of type and payload
    Column("accepted_at", Text, nullable=False),
    Column("published_at", Text),
)
# Not on published_at: it changes, and each change would have to be written into the index as well.
Index(f"{PREFIX}event_accepted_at", EVENT.c.accepted_at)

# Accepted events between commit and publish.
OUTGOING = Table(
    f"{PREFIX}outgoing",
    PRODUCER_METADATA,
    # Never used twice, or a relay that was held up could delete another's row.
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True),
    Column("event_id", Text, nullable=False),
    Column("exchange", Text, nullable=False),
    Column("routing_key", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("properties", LargeBinary, nullable=False),
    Column("created_at", Text, nullable=False),
    sqlite_autoincrement=True,
)

# Who may use the gateway. Secrets themselves are nowhere.
API_KEY = Table(
    f"{PREFIX}api_key",
    PRODUCER_METADATA,
    Column("id", KEY, primary_key=True),
    Column("name", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("scopes", Text, nullable=False),  # JSON, a list
    Column("created_at", Text, nullable=False),
    Column("revoked_at", Text),
)

# Who does what only one process may do at a time.
LEASE = Table(
    f"{PREFIX}lease",
    PRODUCER_METADATA,
    Column("name", KEY, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("expires_at", Double, nullable=False),  # seconds since 1970, by the database's clock
)
