"""The producer's SQL where databases differ: bulk by key. In: a connection in a transaction, ids. Out: rows, changes.

As in the workers' store: ids travel as one JSON text to SQLite and as one array to PostgreSQL, so that a statement has
one text whatever their number; and PostgreSQL's planner, which knows nothing of a new table, is left no choice but the
key (see `postgres.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from pipeline.store.database import Database
from pipeline.store.producer_tables import EVENT, OUTGOING
from pipeline.store.rows import Values, rows_statement

EVENT_COLUMNS = ("id", "type", "source", "subject", "time", "payload", "status", "fingerprint", "accepted_at")
OUTGOING_COLUMNS = ("event_id", "exchange", "routing_key", "body", "properties", "created_at")

KNOWN = {
    "sqlite": (
        f"SELECT json_group_object(id, hex(fingerprint)) FROM {EVENT.name}"  # noqa: S608 - our own names, here and below
        " WHERE id IN (SELECT value FROM json_each(?))"
    ),
    "postgresql": (
        f"SELECT id, fingerprint FROM unnest($1::text[]) AS given (key),"  # noqa: S608
        f" LATERAL (SELECT id, fingerprint FROM {EVENT.name} AS kept WHERE kept.id = given.key LIMIT 1) AS found"
    ),
}
INSERT = (  # PostgreSQL only: another process may be accepting the same ids
    f"INSERT INTO {EVENT.name} ({', '.join(EVENT_COLUMNS)})"  # noqa: S608
    " SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],"
    " $8::bytea[], $9::text[]) ON CONFLICT DO NOTHING RETURNING id"
)
DELETE = {
    "sqlite": f"DELETE FROM {OUTGOING.name} WHERE seq IN (SELECT value FROM json_each(?))",  # noqa: S608
    "postgresql": (
        f"DELETE FROM {OUTGOING.name} WHERE ctid = ANY (ARRAY(SELECT place FROM unnest($1::bigint[]) AS given (key),"  # noqa: S608
        f" LATERAL (SELECT ctid AS place FROM {OUTGOING.name} AS kept WHERE kept.seq = given.key LIMIT 1) AS found))"
    ),
}
PUBLISHED = {
    "sqlite": (
        f"UPDATE {EVENT.name} SET status = 'published', published_at = ?"  # noqa: S608
        " WHERE published_at IS NULL AND id IN (SELECT value FROM json_each(?))"
    ),
    "postgresql": (
        f"UPDATE {EVENT.name} SET status = 'published', published_at = $1"  # noqa: S608
        " WHERE published_at IS NULL AND ctid = ANY (ARRAY(SELECT place FROM unnest($2::text[]) AS given (key),"
        f" LATERAL (SELECT ctid AS place FROM {EVENT.name} AS kept WHERE kept.id = given.key LIMIT 1) AS found))"
    ),
}
FORGET = {
    "sqlite": f"DELETE FROM {EVENT.name} WHERE id IN (SELECT value FROM json_each(?))",  # noqa: S608
    "postgresql": (
        f"DELETE FROM {EVENT.name} WHERE ctid = ANY (ARRAY(SELECT place FROM unnest($1::text[]) AS given (key),"  # noqa: S608
        f" LATERAL (SELECT ctid AS place FROM {EVENT.name} AS kept WHERE kept.id = given.key LIMIT 1) AS found))"
    ),
}


class ProducerRows:
    """Bulk statements for one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        event, outgoing = database.insert(EVENT), database.insert(OUTGOING)
        self._event = rows_statement(EVENT, event, EVENT_COLUMNS)
        self._outgoing = rows_statement(OUTGOING, outgoing, OUTGOING_COLUMNS)

    def known(self, connection: Connection, ids: Sequence[str]) -> dict[str, bytes]:
        """The fingerprints of those that were accepted before, by id."""
        text = KNOWN[connection.dialect.name]
        if connection.dialect.name == "sqlite":
            ((found,),) = _run(connection, text, json.dumps(ids))
            return {key: bytes.fromhex(value) for key, value in json.loads(found).items()}
        return {key: bytes(value) for key, value in connection.exec_driver_sql(text, (list(ids),))}

    def insert_events(self, connection: Connection, rows: Sequence[Values]) -> set[str]:
        """Insert these, by `EVENT_COLUMNS`; the ids of those that were not there."""
        if connection.dialect.name == "sqlite":  # nobody else writes during our transaction: all are new
            self._database.insert_rows(connection, self._event, rows)
            return {row[0] for row in rows}
        # In the order of their ids: two processes that accept the same ones wait for each other, not for ever.
        columns = tuple(map(list, zip(*sorted(rows, key=lambda row: str(row[0])), strict=True)))
        return set(connection.exec_driver_sql(INSERT, columns).scalars())

    def insert_outgoing(self, connection: Connection, rows: Sequence[Values]) -> None:
        """Insert these, by `OUTGOING_COLUMNS`; they are numbered in their order."""
        self._database.insert_rows(connection, self._outgoing, rows)

    def published(self, connection: Connection, seqs: Sequence[int], ids: Sequence[str], at: str) -> None:
        """Take these out of the outbox, and note that their events are published; those gone already do no harm."""
        kind = connection.dialect.name
        if kind == "sqlite":
            _run(connection, DELETE[kind], json.dumps(seqs))
            _run(connection, PUBLISHED[kind], at, json.dumps(ids))
        else:
            connection.exec_driver_sql(DELETE[kind], (list(seqs),))
            connection.exec_driver_sql(PUBLISHED[kind], (at, list(ids)))

    def forget(self, connection: Connection, ids: Sequence[str]) -> None:
        """Delete these events."""
        kind = connection.dialect.name
        if kind == "sqlite":
            _run(connection, FORGET[kind], json.dumps(ids))
        else:
            connection.exec_driver_sql(FORGET[kind], (list(ids),))


def _run(connection: Connection, text: str, *parameters: Any) -> list[Any]:
    return list(connection.connection.cursor().execute(text, parameters).fetchall())
