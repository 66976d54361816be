"""One subscription's database. In: effects of processed events. Out: what is committed, seen, counted, to publish.

store = await Store.open(settings.database_url, "payments", tables=[Payment])
known = await store.seen(ids)               # before the handlers run
report = await store.commit(batch)          # before anything is acked
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, Executable, GenerativeSelect, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel

from pipeline.errors import HandlerError
from pipeline.store.consumers import (
    ConsumerRow,
    consumer_of,
    delete_consumer,
    select_consumers,
    select_served,
    write_consumer,
)
from pipeline.store.database import Database, faults_of, read
from pipeline.store.failures import (
    FailureNote,
    forget_dead,
    forget_failures,
    note_of,
    select_failures,
    upsert_discarded,
    upsert_failures,
    write_failures,
)
from pipeline.store.opening import open_database
from pipeline.store.ordered.store import OrderedStore
from pipeline.store.tables import INBOX, OUTBOX, RESULT
from pipeline.store.times import as_time
from pipeline.store.transaction import Committer, unstorable
from pipeline.store.writes import CommitReport, Counts, Effects, Outgoing


class Store:
    """One subscription's inbox, results, outbox and tables. Made by `open`; its methods may be called concurrently.

    Every method raises StoreUnavailable when the database is in trouble. That is never an event's fault: wait and
    call again, nothing needs to be reopened.
    """

    def __init__(self, database: Database, subscription: str) -> None:
        self._database = database
        self._subscription = subscription
        self._committer = Committer(database, subscription)
        self._failures = upsert_failures(database)

    @classmethod
    async def open(cls, url: str, subscription: str, tables: Sequence[type[SQLModel]] = ()) -> Store:
        """Open the database at `url` (`{subscription}` in it is replaced); make its folder and the missing tables.

        Safe from several processes at once. Raises: ConfigurationError when URL or tables can't be used,
        StoreUnavailable when the database can't be reached or written.
        """
        database = open_database(url, subscription, tables)
        try:
            await database.write(lambda connection: None)  # connects, which makes the tables
        except BaseException:
            await database.close()
            raise
        return cls(database, subscription)

    async def seen(self, event_ids: Sequence[str]) -> set[str]:
        """Which of these events are processed already."""
        odd = unstorable(event_ids)
        ids = [event_id for event_id in event_ids if event_id not in odd] if odd else list(event_ids)
        return await self._database.seen(self._subscription, ids) if ids else set()

    async def commit(self, batch: Sequence[Effects]) -> CommitReport:
        """Commit the effects of a batch in one transaction, leaving out events whose rows are refused.

        After StoreUnavailable, or when cancelled, a batch may or may not be committed: commit it again. What was
        committed then comes back as duplicates.
        """
        if not batch:
            return CommitReport([], set(), {})
        return await self._database.write(lambda connection: self._committer.commit(connection, batch))

    async def query(self, statement: Executable) -> list[Any]:
        """All that a select gives: a list of values when it selects one thing, otherwise of rows.

        Sees what is committed, not what the running batch will write. Raises: HandlerError for anything but a select,
        SQLAlchemy's own errors for a select that is wrong.
        """
        if not isinstance(statement, GenerativeSelect):  # a textual one could be anything
            raise HandlerError(
                "a handler's query may only read; return insert(), update() or delete() statements from the handler"
            )
        with faults_of(self._database):
            async with AsyncSession(self._database.reader, expire_on_commit=False) as session:
                result = await session.execute(statement)
                single = len(result.keys()) == 1
                return [row[0] for row in result] if single else list(result)

    async def outgoing(self, limit: int, older_than: float = 0.0) -> list[Outgoing]:
        """The follow-up events that wait longest to be published, at most `limit`, made over `older_than` s ago."""
        columns = (OUTBOX.c[name] for name in Outgoing.__slots__)
        made_before = f"{int((time.time() - older_than) * 1000):012x}~"  # a key begins with its milliseconds
        ours = (OUTBOX.c.subscription == self._subscription, OUTBOX.c.key < made_before)
        rows = await self._read(select(*columns).where(*ours).order_by(OUTBOX.c.key).limit(limit))
        return [Outgoing(*row) for row in rows]

    async def forget_outgoing(self, keys: Sequence[str]) -> None:
        """Take published follow-up events out of the outbox; keys that are gone already do no harm."""
        if not keys:
            return
        await self._database.write(partial(self._delete_outgoing, keys))

    async def note_failures(self, notes: Sequence[FailureNote]) -> None:
        """Keep the newest note of each event, in one bulk upsert. Ids that can't be stored are left out."""
        if notes:
            database, statement, ours = self._database, self._failures, self._subscription
            await database.write(lambda connection: write_failures(connection, database, statement, ours, notes))

    async def failures(self, event_ids: Sequence[str]) -> dict[str, FailureNote]:
        """The notes of these events, by id. An event that is in the inbox too is processed, whatever its note says."""
        odd = unstorable(event_ids)
        ids = [event_id for event_id in event_ids if event_id not in odd]
        rows = await self._read(select_failures(self._subscription, ids)) if ids else []
        return {note.event_id: note for note in map(note_of, rows)}

    async def forget_failures(self, event_ids: Sequence[str]) -> None:
        """Delete the notes of these events; those without one do no harm."""
        odd = unstorable(event_ids)
        ids = [event_id for event_id in event_ids if event_id not in odd]
        if ids:
            database, ours = self._database, self._subscription
            await database.write(lambda connection: forget_failures(connection, database, ours, ids))

    async def note_discarded(self, notes: Sequence[FailureNote]) -> None:
        """These dead letters were removed: keep that, and what is known of how they failed."""
        if notes:
            database, statement, ours = self._database, upsert_discarded(self._database), self._subscription
            await database.write(lambda connection: write_failures(connection, database, statement, ours, notes))

    async def forget_dead(self, event_ids: Sequence[str], before: datetime) -> None:
        """These dead letters are on their way again: what was noted of their end before that moment is no longer so."""
        odd = unstorable(event_ids)
        ids = [event_id for event_id in event_ids if event_id not in odd]
        if ids:
            database, ours = self._database, self._subscription
            await database.write(lambda connection: forget_dead(connection, database, ours, ids, before))

    async def processed(self, event_id: str) -> datetime | None:
        """When this event was committed, aware, UTC; None when it is not."""
        if unstorable([event_id]):
            return None
        ours = (INBOX.c.subscription == self._subscription, INBOX.c.event_id == event_id)
        rows = await self._read(select(INBOX.c.processed_at).where(*ours))
        return as_time(rows[0][0]) if rows else None

    async def result(self, event_id: str) -> bytes | None:
        """The JSON that the handler of this event returned; None when it is not processed or returned no such value."""
        if unstorable([event_id]):
            return None
        ours = (RESULT.c.subscription == self._subscription, RESULT.c.event_id == event_id)
        rows = await self._read(select(RESULT.c.value).where(*ours))
        return rows[0][0].encode() if rows else None

    async def note_consumer(self, consumer: ConsumerRow, event_types: Sequence[str], forget_before: datetime) -> None:
        """A worker process is alive; forget those that were last seen before that time."""
        database, ours = self._database, self._subscription
        await database.write(
            lambda connection: write_consumer(connection, database, ours, consumer, event_types, forget_before)
        )

    async def forget_consumer(self, consumer_id: str) -> None:
        """A worker process has ended in order."""
        database, ours = self._database, self._subscription
        await database.write(lambda connection: delete_consumer(connection, database, ours, consumer_id))

    async def consumers(self) -> list[tuple[ConsumerRow, tuple[str, ...]]]:
        """Worker processes that did not end in order, oldest first, each with the event types it has handlers for."""
        served: dict[str, list[str]] = {}
        for consumer, event_type in await self._read(select_served(self._subscription)):
            served.setdefault(consumer, []).append(event_type)
        rows = map(consumer_of, await self._read(select_consumers(self._subscription)))
        return [(row, tuple(served.get(row.id, ()))) for row in rows]

    async def last_processed(self) -> datetime | None:
        """When this subscription's newest event was committed, aware, UTC; None when there is none."""
        ours = INBOX.c.subscription == self._subscription
        ((text,),) = await self._read(select(func.max(INBOX.c.processed_at)).where(ours))
        return None if text is None else datetime.fromisoformat(text)

    async def counts(self) -> Counts:
        """How many rows this subscription has in the library's tables, counted now."""
        counted = (
            select(func.count()).select_from(table).where(table.c.subscription == self._subscription).scalar_subquery()
            for table in (INBOX, RESULT, OUTBOX)
        )
        (row,) = await self._read(select(*counted))
        return Counts(*row)

    def ordered(self) -> OrderedStore:
        """What an ordered subscription needs beside this; it is closed with this one."""
        return OrderedStore(self._database, self._subscription)

    async def close(self) -> None:
        """Wait for what is under way and close all connections."""
        await self._database.close()

    async def _read(self, statement: Executable) -> list[Any]:
        return await read(self._database, statement)

    def _delete_outgoing(self, keys: Sequence[str], connection: Connection) -> None:
        with faults_of(self._database), connection.begin():
            self._database.forget(connection, OUTBOX, self._subscription, keys)
