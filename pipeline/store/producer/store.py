"""The producer's database. In: events that the gateway accepts. Out: events to publish, their status, keys, a lease.

store = await ProducerStore.open(settings.producer_database_url)
answers = await store.accept([event], bound=100_000)    # committed when it returns
rows = await store.waiting(1000)                        # a relay publishes these,
await store.mark_published(rows)                        # and then takes them out
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, Executable, func, select, tuple_
from sqlalchemy.sql.elements import ColumnElement

from pipeline.message import Message
from pipeline.store.database import Database, faults_of, read
from pipeline.store.moments import moment_of, now_text, text_of
from pipeline.store.opening import database_at
from pipeline.store.producer.accept import Acceptor
from pipeline.store.producer.keys import Keys
from pipeline.store.producer.lease import Leases
from pipeline.store.producer.rows import ProducerRows
from pipeline.store.producer.values import Acceptance, ApiKey, NewEvent, OutboxStatus, StoredEvent, Waiting
from pipeline.store.producer_tables import EVENT, OUTGOING
from pipeline.store.schema import create_producer
from pipeline.store.transaction import unstorable

NAME = "producer"  # what stands for the subscription where a database is opened
READ_BYTES = 8 * 1024 * 1024  # of bodies in one `waiting`, about
FORGET = 1000  # events a transaction


class ProducerStore:
    """Accepted events, the outbox, API keys and leases. Made by `open`; its methods may be called concurrently.

    Every method raises StoreUnavailable when the database is in trouble: wait and call again, nothing needs to be
    reopened.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = ProducerRows(database)
        self._acceptor = Acceptor(database)
        self._leases = Leases(database)
        self._keys = Keys(database)

    @classmethod
    async def open(cls, url: str) -> ProducerStore:
        """Open the database at `url`; make its folder and, in an empty one, the tables.

        Safe from several processes at once. Raises: ConfigurationError when the URL can't be used or the tables are
        those of another version, StoreUnavailable when the database can't be reached or written.
        """
        database = database_at(url, NAME, create_producer)
        try:
            await database.write(lambda connection: None)  # connects, which makes the tables
        except BaseException:
            await database.close()
            raise
        return cls(database)

    async def close(self) -> None:
        """Wait for what is under way and close all connections."""
        await self._acceptor.finish()
        await self._database.close()

    async def accept(self, events: Sequence[NewEvent], bound: int) -> list[Acceptance]:
        """Commit these events to be published, all in one transaction with those of concurrent calls; one answer each.

        No more than `bound` events may wait afterwards, as far as this process knows: it counts every half second, and
        what others accept in between goes beyond it. Repeated events are answered even when the outbox is full.

        Raises: OutboxFull (nothing of the call is accepted), RowRejected for text that can't be kept, StoreUnavailable:
            the events may or may not be committed then, as when the call is cancelled; accept them again.
        """
        return await self._acceptor.accept(events, bound)

    async def event(self, event_id: str) -> StoredEvent | None:
        """The event as it was accepted; None when it was not, or is forgotten."""
        if unstorable([event_id]):
            return None
        columns = (EVENT.c[name] for name in StoredEvent.__slots__)
        found = await self._read(select(*columns).where(EVENT.c.id == event_id))
        return _stored(found[0]) if found else None

    async def waiting(
        self, limit: int, after: int = 0, without: Collection[tuple[str, str]] = (), only: tuple[str, str] | None = None
    ) -> list[Waiting]:
        """The events that wait to be published, in the order of acceptance: at most `limit`, and of some 8 MiB.

        `after` leaves out those up to this `seq`, `without` those of these routes (exchange, routing key), `only` all
        that are not of this one. On PostgreSQL a smaller `seq` may appear after a greater one: always begin at 0 now
        and then, and take out what was published by `mark_published` alone.
        """
        route = tuple_(OUTGOING.c.exchange, OUTGOING.c.routing_key)
        wanted: list[ColumnElement[bool]] = [OUTGOING.c.seq > after]
        if without:
            wanted.append(route.not_in(list(without)))
        if only is not None:
            wanted += [OUTGOING.c.exchange == only[0], OUTGOING.c.routing_key == only[1]]
        size = func.length(OUTGOING.c.body)
        some = (
            select(OUTGOING.c.seq, size.label("size")).where(*wanted).order_by(OUTGOING.c.seq).limit(limit).subquery()
        )
        before = func.sum(some.c.size).over(order_by=some.c.seq) - some.c.size
        sums = select(some.c.seq, before.label("before")).subquery()
        last = select(func.max(sums.c.seq)).where(sums.c.before < READ_BYTES).scalar_subquery()
        columns = (OUTGOING.c[name] for name in ("seq", "event_id", "exchange", "routing_key", "body", "properties"))
        statement = select(*columns).where(*wanted, OUTGOING.c.seq <= last).order_by(OUTGOING.c.seq).limit(limit)
        return [
            Waiting(seq, event_id, Message(exchange, routing_key, body, properties, event_id))
            for seq, event_id, exchange, routing_key, body, properties in await self._read(statement)
        ]

    async def mark_published(self, rows: Sequence[Waiting]) -> None:
        """Take these out of the outbox and note that they are published; doing it twice does no harm."""
        if not rows:
            return
        seqs, ids = [row.seq for row in rows], [row.event_id for row in rows]
        at = now_text()

        def mark(connection: Connection) -> None:
            with faults_of(self._database), connection.begin():
                self._rows.published(connection, seqs, ids, at)

        await self._database.write(mark)

    async def status(self) -> OutboxStatus:
        """Counted now, which with a million events takes a second or so."""
        oldest = select(OUTGOING.c.created_at).order_by(OUTGOING.c.seq).limit(1).scalar_subquery()
        waiting = select(func.count()).select_from(OUTGOING).scalar_subquery()
        published = func.count(EVENT.c.published_at)
        ((count, since, accepted, done),) = await self._read(select(waiting, oldest, func.count(EVENT.c.id), published))
        return OutboxStatus(count, None if since is None else moment_of(since), accepted, done)

    async def forget(self, before: datetime) -> int:
        """Delete the events that were published before this moment; how many. Those that wait are never deleted."""
        forgotten = FORGET
        total = 0
        while forgotten == FORGET:
            forgotten = await self._database.write(partial(self._forget, text_of(before)))
            total += forgotten
        return total

    async def lease(self, name: str, holder: str, seconds: float) -> bool:
        """Whether `holder` has the lease from now on for so long; asking again renews it.

        Nobody else gets it before it has run out, or is released. Clocks are the database's.
        """
        return await self._leases.take(name, holder, seconds)

    async def release(self, name: str, holder: str) -> None:
        """Give the lease back, if `holder` has it."""
        await self._leases.release(name, holder)

    async def holder(self, name: str) -> str | None:
        """Who has the lease now."""
        return await self._leases.holder(name)

    async def add_key(self, key: ApiKey) -> None:
        """Keep a new key. Raises: RowRejected when there is one with this id."""
        await self._keys.add(key)

    async def keys(self) -> list[ApiKey]:
        """All keys, revoked ones too, oldest first."""
        return await self._keys.all()

    async def key(self, key_id: str) -> ApiKey | None:
        """The key with this id, be it revoked or not."""
        return None if unstorable([key_id]) else await self._keys.get(key_id)

    async def revoke_key(self, key_id: str) -> bool:
        """Revoke a key for good; False when there is none that could be."""
        return False if unstorable([key_id]) else await self._keys.revoke(key_id)

    def _forget(self, before: str, connection: Connection) -> int:
        # What was published before was accepted before, and that has an index.
        old = (EVENT.c.accepted_at < before, EVENT.c.published_at < before)
        some = select(EVENT.c.id).where(*old).order_by(EVENT.c.accepted_at).limit(FORGET)
        with faults_of(self._database), connection.begin():
            ids = list(connection.execute(some).scalars())
            if ids:
                self._rows.forget(connection, ids)
        return len(ids)

    async def _read(self, statement: Executable) -> list[Any]:
        return await read(self._database, statement)


def _stored(row: Any) -> StoredEvent:
    return StoredEvent(
        id=row.id,
        type=row.type,
        source=row.source,
        subject=row.subject,
        time=moment_of(row.time),
        payload=row.payload.encode(),
        status=row.status,
        accepted_at=moment_of(row.accepted_at),
        published_at=None if row.published_at is None else moment_of(row.published_at),
    )
