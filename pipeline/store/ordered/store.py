"""The store of an ordered subscription. In: partitions taken, batches in order. Out: what was committed, in that order.

Whoever a partition's queue is delivered to takes the partition: its epoch grows. A commit names the epochs it was made
under, and what belongs to an older one is left out: a process that has lost its connection can't write any more, even
if it does not know yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial

from sqlalchemy import Connection, delete, func, select

from pipeline.event import utc_now
from pipeline.store.database import Database, faults_of, read
from pipeline.store.ordered.commit import OrderedCommitter
from pipeline.store.ordered.lines import Entry, LineRow, OrderedReport
from pipeline.store.tables import LINE, PARTITION
from pipeline.store.times import as_text, as_time

# A dead event that holds nobody up is remembered so long: until then its original may come again, if its ack was lost.
REMEMBERED = timedelta(days=7)


class OrderedStore:
    """Made by `Store.ordered`. Every method raises StoreUnavailable when the database is in trouble."""

    def __init__(self, database: Database, subscription: str) -> None:
        self._database = database
        self._subscription = subscription
        self._committer = OrderedCommitter(database, subscription)

    async def take(self, partition: str, owner: str) -> int:
        """Become the owner of a partition; the epoch to commit under. Waits for a commit of the owner before."""
        return await self._database.write(lambda connection: self._take(connection, partition, owner))

    async def lines(self) -> dict[str, LineRow]:
        """All failed events that are not processed, by id."""
        await self._database.write(self._forget_old)
        columns = [LINE.c[name] for name in LineRow.__slots__]
        rows = await read(self._database, select(*columns).where(LINE.c.subscription == self._subscription))
        found = {}
        for event_id, key, state, attempt, redrives, next_at, place in rows:
            when = None if next_at is None else as_time(next_at)
            found[event_id] = LineRow(event_id, key, state, attempt, redrives, when, place)
        return found

    async def first_in_line(self, key: str) -> str | None:
        """The id of the event that a parked key waits for; None when it is not parked (any more)."""
        ours = (LINE.c.subscription == self._subscription, LINE.c.key == key, LINE.c.place > 0)
        rows = await read(self._database, select(LINE.c.event_id).where(*ours).order_by(LINE.c.place).limit(1))
        return rows[0][0] if rows else None

    async def parked_keys(self) -> dict[str, int]:
        """How many events wait, by parked key."""
        ours = (LINE.c.subscription == self._subscription, LINE.c.place > 0)
        counted = select(LINE.c.key, func.count()).where(*ours).group_by(LINE.c.key)
        return dict(await read(self._database, counted))

    async def forget_lines(self, event_ids: Sequence[str]) -> None:
        """Nobody has to wait for these any more: they were discarded."""
        if event_ids:
            await self._database.write(partial(self._forget, event_ids))

    async def commit(self, entries: Sequence[Entry], epochs: Mapping[str, int]) -> OrderedReport:
        """Commit the entries in their order, in one transaction; `epochs` by partition are those taken.

        When the database refuses an event's rows, that event is left out and with it what follows of its key. After
        StoreUnavailable the batch may or may not be committed: commit it again.
        """
        report = OrderedReport()
        if entries:
            await self._database.write(lambda connection: self._committer.run(connection, entries, epochs, report))
        return report

    def _take(self, connection: Connection, partition: str, owner: str) -> int:
        insert = self._database.insert(PARTITION).values(
            subscription=self._subscription, partition=partition, epoch=1, owner=owner, taken_at=as_text(utc_now())
        )
        insert = insert.on_conflict_do_update(
            index_elements=[PARTITION.c.subscription, PARTITION.c.partition],
            set_={
                "epoch": PARTITION.c.epoch + 1,
                "owner": insert.excluded["owner"],
                "taken_at": insert.excluded["taken_at"],
            },
        )
        ours = (PARTITION.c.subscription == self._subscription, PARTITION.c.partition == partition)
        with faults_of(self._database), connection.begin():
            connection.execute(insert)
            return int(connection.execute(select(PARTITION.c.epoch).where(*ours)).scalar_one())

    def _forget(self, event_ids: Sequence[str], connection: Connection) -> None:
        with faults_of(self._database), connection.begin():
            self._database.forget(connection, LINE, self._subscription, event_ids)

    def _forget_old(self, connection: Connection) -> None:
        old = (LINE.c.subscription == self._subscription, LINE.c.place == 0, LINE.c.state == "dead")
        with faults_of(self._database), connection.begin():
            connection.execute(delete(LINE).where(*old, LINE.c.at < as_text(utc_now() - REMEMBERED)))
