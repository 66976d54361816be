"""Worker processes and what they serve. In: a process's facts, its heartbeats. Out: rows of two tables, and them again.

Consumer {id, name, endpoint: host, process, version, started, last seen} and Subscription {id, consumer, event type}.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, delete, select

from pipeline.store.database import Database, faults_of
from pipeline.store.rows import RowsStatement, rows_statement
from pipeline.store.tables import CONSUMER, SUBSCRIPTION
from pipeline.store.times import as_text, as_time


@dataclass(frozen=True, slots=True)
class ConsumerRow:
    """One worker process, as it told of itself. Times are aware, UTC, by its own clock."""

    id: str
    name: str
    host: str
    process: int  # its id on that host
    version: str
    started: datetime
    last_seen: datetime


def upserts(database: Database) -> tuple[RowsStatement, RowsStatement]:
    """The statements that write a consumer, and what it serves."""
    insert = database.insert(CONSUMER)
    insert = insert.on_conflict_do_update(
        index_elements=[CONSUMER.c.subscription, CONSUMER.c.id], set_={"last_seen": insert.excluded["last_seen"]}
    )
    serves = database.insert(SUBSCRIPTION).on_conflict_do_nothing()
    return (
        rows_statement(CONSUMER, insert, CONSUMER.columns.keys()),
        rows_statement(SUBSCRIPTION, serves, SUBSCRIPTION.columns.keys()),
    )


def write_consumer(
    connection: Connection,
    database: Database,
    subscription: str,
    consumer: ConsumerRow,
    event_types: Sequence[str],
    forget_before: datetime,
) -> None:
    """Write it as it is now, and forget those of this subscription that were last seen before that time."""
    consumers, serves = upserts(database)
    old = select(CONSUMER.c.id).where(
        CONSUMER.c.subscription == subscription, CONSUMER.c.last_seen < as_text(forget_before)
    )
    times = (as_text(consumer.started), as_text(consumer.last_seen))
    row = [subscription, consumer.id, consumer.name, consumer.host, consumer.process, consumer.version, *times]
    with faults_of(database), connection.begin():
        database.insert_rows(connection, consumers, [row])
        if event_types:
            rows = [[subscription, consumer.id, event_type] for event_type in event_types]
            database.insert_rows(connection, serves, rows)
        ours = SUBSCRIPTION.c.subscription == subscription
        connection.execute(delete(SUBSCRIPTION).where(ours, SUBSCRIPTION.c.consumer.in_(old)))
        connection.execute(
            delete(CONSUMER).where(CONSUMER.c.subscription == subscription, CONSUMER.c.id.in_(old.scalar_subquery()))
        )


def delete_consumer(connection: Connection, database: Database, subscription: str, consumer_id: str) -> None:
    """It has ended in order: nobody needs to look for it."""
    with faults_of(database), connection.begin():
        for table, key in ((SUBSCRIPTION, SUBSCRIPTION.c.consumer), (CONSUMER, CONSUMER.c.id)):
            connection.execute(delete(table).where(table.c.subscription == subscription, key == consumer_id))


def select_consumers(subscription: str) -> Select[Any]:
    """The statement that finds those of a subscription; its rows go to `consumer_of`."""
    columns = [CONSUMER.c[name] for name in ConsumerRow.__slots__]
    return select(*columns).where(CONSUMER.c.subscription == subscription).order_by(CONSUMER.c.started, CONSUMER.c.id)


def consumer_of(row: Sequence[Any]) -> ConsumerRow:
    """The consumer in one row of `select_consumers`."""
    consumer_id, name, host, process, version, started, last_seen = row
    return ConsumerRow(consumer_id, name, host, process, version, as_time(started), as_time(last_seen))


def select_served(subscription: str) -> Select[Any]:
    """The statement that finds (consumer id, event type)."""
    columns = (SUBSCRIPTION.c.consumer, SUBSCRIPTION.c.event_type)
    return select(*columns).where(SUBSCRIPTION.c.subscription == subscription).order_by(*columns)
