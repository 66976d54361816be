"""PostgreSQL as a `Database`: connections, inbox, rows in bulk. In: an address. Out: `Postgres`.

Through asyncpg, beneath SQLAlchemy's asyncio engine: a transaction runs in the event loop, as a coroutine that
SQLAlchemy makes of plain calls. One connection writes, a few others read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import Connection, Table, event
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from pipeline.errors import ConfigurationError, HandlerError, RowRejected, StoreUnavailable
from pipeline.store.database import faults_of
from pipeline.store.postgres_address import Address
from pipeline.store.postgres_faults import (
    LOST,
    driver_error,
    harmless,
    hide_values,
    postgres_fault,
    sqlstate,
    without_values,
)
from pipeline.store.postgres_rows import RowsWriter
from pipeline.store.rows import DialectInsert, RowsStatement, Values
from pipeline.store.tables import INBOX
from pipeline.store.uninterrupted import uninterrupted

T = TypeVar("T")

READERS = 4  # connections, opened when they are needed
READ_ONLY = "25006"
UNSTORABLE = ("22", "54")  # SQLSTATEs of an id or type that PostgreSQL can't keep: wrong characters, too long to index
MAKING_TABLES = int.from_bytes(b"pipeline")  # the advisory lock of whoever makes missing tables

CLAIM = (
    f"INSERT INTO {INBOX.name} (subscription, event_id, event_type, processed_at)"  # noqa: S608 - our own names
    " SELECT $1, event_id, event_type, $2 FROM unnest($3::text[], $4::text[]) AS given (event_id, event_type)"
    " ON CONFLICT DO NOTHING RETURNING event_id"
)
# Found one by one through the key. Asked for with `= ANY($2)`, a planner that knows nothing of a new table yet takes
# 500 keys for all of it, and reads it from end to end: up to 0.3 s a batch in the first minute, against 1 ms.
SEEN = (
    "SELECT event_id FROM unnest($2::text[]) AS given (event_id),"  # noqa: S608 - our own names
    f" LATERAL (SELECT FROM {INBOX.name} AS kept"
    " WHERE kept.subscription = $1 AND kept.event_id = given.event_id LIMIT 1) AS found"
)
FORGET = (
    "DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT place FROM unnest($2::text[]) AS given (key),"
    " LATERAL (SELECT ctid AS place FROM {table} AS kept"
    " WHERE kept.subscription = $1 AND kept.{key} = given.key LIMIT 1) AS found))"
)


class Postgres:
    """One PostgreSQL database. `prepare` is run on every new connection that writes, and makes the tables."""

    def __init__(self, address: Address, prepare: Callable[[Connection], None]) -> None:
        self._name = address.name
        self._prepare = prepare
        self._writer = self._engine(address.connect, connections=1)
        self._reader = self._engine(
            partial(address.connect, default_transaction_read_only="on"),
            connections=READERS,
            isolation_level="AUTOCOMMIT",
            pool_reset_on_return=None,  # in autocommit there is nothing to roll back
        )
        event.listen(self._reader.sync_engine, "handle_error", _only_reading)
        self._turn = asyncio.Lock()
        self._rows: dict[RowsStatement, RowsWriter] = {}

    @property
    def insert(self) -> DialectInsert:
        """PostgreSQL's insert()."""
        return insert

    @property
    def reader(self) -> AsyncEngine:
        """Connections whose transactions are read-only."""
        return self._reader

    async def write(self, work: Callable[[Connection], T]) -> T:
        """See `Database.write`."""
        return await uninterrupted(asyncio.create_task(self._write(work)))

    async def seen(self, subscription: str, event_ids: Sequence[str]) -> set[str]:
        """See `Database.seen`. By the driver itself: SQLAlchemy's part took twice as long as all the rest."""
        with faults_of(self):
            async with self._reader.connect() as connection:
                assert connection.sync_connection is not None
                driver: Any = connection.sync_connection.connection.driver_connection
                try:
                    return {event_id for (event_id,) in await driver.fetch(SEEN, subscription, list(event_ids))}
                except (OSError, asyncpg.InterfaceError) as error:
                    raise self._lost(driver, error) from error

    def claim(self, connection: Connection, subscription: str, types: Mapping[str, str], at: str) -> set[str]:
        """See `Database.claim`. In the order of the ids, so that two batches with the same ones wait, not deadlock."""
        ids = sorted(types)
        try:
            claimed = connection.exec_driver_sql(CLAIM, (subscription, at, ids, [types[key] for key in ids]))
        except DBAPIError as error:
            if sqlstate(error).startswith(UNSTORABLE):
                raise RowRejected(without_values(driver_error(error))) from error
            raise
        return set(claimed.scalars())

    def insert_rows(self, connection: Connection, statement: RowsStatement, rows: Sequence[Values]) -> None:
        """See `Database.insert_rows`."""
        if (writer := self._rows.get(statement)) is None:
            writer = self._rows[statement] = RowsWriter(statement, connection.dialect)
        writer.write(connection, rows)

    def forget(self, connection: Connection, table: Table, subscription: str, keys: Sequence[str]) -> None:
        """See `Database.forget`."""
        _, key = table.primary_key.columns
        connection.exec_driver_sql(FORGET.format(table=table.name, key=key.name), (subscription, list(keys)))

    def fault(self, error: BaseException) -> StoreUnavailable | None:
        """See `Database.fault`."""
        return postgres_fault(error, self._name)

    async def close(self) -> None:
        """See `Database.close`."""
        async with self._turn:  # after what is under way
            await self._writer.dispose()
            await self._reader.dispose()

    def _engine(self, connect: Callable[[], Any], connections: int, **more: Any) -> AsyncEngine:
        engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=connect,
            pool_size=connections,
            max_overflow=0,
            hide_parameters=True,
            **more,
        )
        event.listen(engine.sync_engine, "checkout", _taken)
        event.listen(engine.sync_engine, "handle_error", self._failed)
        return engine

    async def _write(self, work: Callable[[Connection], T]) -> T:
        async with self._turn:
            with faults_of(self):
                async with self._writer.connect() as connection:
                    ready = False
                    try:
                        if not connection.info.get("ready"):
                            await connection.run_sync(self._make_tables)
                            connection.info["ready"] = True
                        ready = True
                        return await connection.run_sync(work)
                    except BaseException as error:
                        if not (ready and harmless(error.__cause__ or error)):
                            await connection.invalidate()  # the next one finds a new connection, with all tables made
                        raise

    def _make_tables(self, connection: Connection) -> None:
        """Make what is missing: one process after the other, for two at once would be in each other's way.

        The lock ends with the connection, if not before: after any error it has to be closed.
        """
        with connection.begin():
            connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_lock({MAKING_TABLES})")
        try:
            self._prepare(connection)
        except SQLAlchemyError as error:
            if self.fault(error) is not None:
                raise
            reason = without_values(driver_error(error))
            raise ConfigurationError(f"tables can't be made in the database {self._name}: {reason}") from error
        with connection.begin():
            connection.exec_driver_sql(f"SELECT pg_advisory_unlock({MAKING_TABLES})")

    def _failed(self, context: ExceptionContext) -> BaseException | None:
        """Every error of the driver comes by here first: what it tells is cleared of values, at the source."""
        error = context.original_exception
        in_driver = context.execution_context is not None or context.statement is None
        if isinstance(error, OSError) and in_driver:  # a timeout, a broken line
            context.is_disconnect = True
            if context.connection is not None:
                return self._lost(context.connection.connection.driver_connection, error)
        hide_values(error, context.sqlalchemy_exception)
        return None

    def _lost(self, driver: Any, error: Exception) -> StoreUnavailable:
        driver.terminate()  # closing it in an orderly way would wait for an answer again
        reason = "a statement got no answer in time" if isinstance(error, TimeoutError) else str(error)
        return StoreUnavailable(f"the database {self._name} can't be used ({reason}): {LOST}")


def _taken(connection: Any, _record: Any, _proxy: Any) -> None:
    """The event loop has noticed when the server has ended an idle connection, so asking the server is not needed."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError  # SQLAlchemy's way to ask for a new connection


def _only_reading(context: ExceptionContext) -> BaseException | None:
    if sqlstate(context.original_exception) == READ_ONLY:
        return HandlerError(
            "a handler's query may only read; return insert(), update() or delete() statements from the handler"
        )
    return None
