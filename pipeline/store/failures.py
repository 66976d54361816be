"""Notes of what failed and was not processed yet. In: `FailureNote`s. Out: rows of pipeline_failure, and them again.

They are for whoever asks where an event is. Nothing else depends on them: a note that is missing is a poorer answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

from sqlalchemy import Connection, Select, delete, select

from pipeline.store.database import Database, faults_of
from pipeline.store.rows import RowsStatement, Values, rows_statement
from pipeline.store.tables import FAILURE
from pipeline.store.times import as_text, as_time
from pipeline.store.transaction import unstorable

FailureState: TypeAlias = Literal["retrying", "dead", "discarded"]

LONGEST_ID = 500  # characters; a longer one may not fit into an index, and would cost its neighbours their notes
LONGEST_TEXT = 2000  # characters of an error
WORKER_DIED = "worker_died"  # the reason of a note on an event that is handled again, with care


@dataclass(frozen=True, slots=True)
class FailureNote:
    """How attempt number `attempt` (from 1) of one event failed, and what follows. Times are aware, UTC.

    `at` is when it failed, or was discarded.
    """

    event_id: str
    event_type: str
    state: FailureState
    attempt: int
    next_at: datetime | None  # when it is tried again; None when dead
    reason: str  # why it is dead: exhausted, rejected, undecodable, …; while it is retried "" or WORKER_DIED
    error: str
    at: datetime


def upsert_failures(database: Database) -> RowsStatement:
    """The statement that keeps the newest note of each event, whatever the order they are written in."""
    insert = database.insert(FAILURE)
    changes = {
        column.name: insert.excluded[column.name]
        for column in FAILURE.columns
        if column.name not in ("subscription", "event_id")
    }
    insert = insert.on_conflict_do_update(
        index_elements=[FAILURE.c.subscription, FAILURE.c.event_id],
        set_=changes,
        where=FAILURE.c.at <= insert.excluded["at"],
    )
    return rows_statement(FAILURE, insert, FAILURE.columns.keys())


def upsert_discarded(database: Database) -> RowsStatement:
    """The statement that says of dead letters that they were removed; what is known of how they failed stays."""
    insert = database.insert(FAILURE)
    insert = insert.on_conflict_do_update(
        index_elements=[FAILURE.c.subscription, FAILURE.c.event_id],
        set_={name: insert.excluded[name] for name in ("state", "next_at", "at")},
        where=FAILURE.c.at <= insert.excluded["at"],
    )
    return rows_statement(FAILURE, insert, FAILURE.columns.keys())


def write_failures(
    connection: Connection,
    database: Database,
    statement: RowsStatement,
    subscription: str,
    notes: Sequence[FailureNote],
) -> None:
    """Write the notes in one transaction; of several for one event, the last."""
    latest = {note.event_id: note for note in notes}
    for event_id in unstorable(latest):
        del latest[event_id]
    # In the order of their ids: two processes that write the same ones wait for each other, they don't lock up.
    rows = [_row(subscription, latest[key]) for key in sorted(latest) if 0 < len(key) <= LONGEST_ID]
    if rows:
        with faults_of(database), connection.begin():
            database.insert_rows(connection, statement, rows)


def forget_failures(connection: Connection, database: Database, subscription: str, event_ids: Sequence[str]) -> None:
    """Delete the notes of these events."""
    with faults_of(database), connection.begin():
        database.forget(connection, FAILURE, subscription, event_ids)


def forget_dead(
    connection: Connection, database: Database, subscription: str, event_ids: Sequence[str], before: datetime
) -> None:
    """Delete those of these events' notes that say, from before that moment, that they are dead or discarded."""
    ours = (FAILURE.c.subscription == subscription, FAILURE.c.event_id.in_(list(event_ids)))
    ended = (FAILURE.c.state != "retrying", FAILURE.c.at <= as_text(before))
    with faults_of(database), connection.begin():
        connection.execute(delete(FAILURE).where(*ours, *ended))


def select_failures(subscription: str, event_ids: Iterable[str]) -> Select[Any]:
    """The statement that finds these events' notes; its rows go to `note_of`."""
    columns = [FAILURE.c[name] for name in FailureNote.__slots__]
    return select(*columns).where(FAILURE.c.subscription == subscription, FAILURE.c.event_id.in_(list(event_ids)))


def note_of(row: Sequence[Any]) -> FailureNote:
    """The note in one row of `select_failures`."""
    event_id, event_type, state, attempt, next_at, reason, error, at = row
    when = None if next_at is None else as_time(next_at)
    return FailureNote(event_id, event_type, state, attempt, when, reason, error, as_time(at))


def _row(subscription: str, note: FailureNote) -> Values:
    next_at = None if note.next_at is None else as_text(note.next_at)
    texts = map(_storable, (note.event_type, note.state))
    return [
        *(subscription, note.event_id, *texts, note.attempt, next_at),
        *(_storable(note.reason), _storable(note.error)[:LONGEST_TEXT], as_text(note.at)),
    ]


def _storable(text: str) -> str:
    """The text without what no database keeps: an error's words may hold anything."""
    return text.replace("\0", "�").encode("utf-8", "replace").decode()
