"""What one kind of database has to offer the store. In: nothing. Out: the `Database` protocol.

It is kept by `sqlite.py` and `postgres.py`. All that differs between databases is behind this; the transaction, the
order of writes and the rows know only SQLAlchemy Core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Executable, Table
from sqlalchemy.ext.asyncio import AsyncEngine

from pipeline.errors import StoreUnavailable
from pipeline.store.rows import DialectInsert, RowsStatement, Values

T = TypeVar("T")


class Database(Protocol):
    """One database, opened: a way to write, a way to read, and its dialect."""

    @property
    def insert(self) -> DialectInsert:
        """The dialect's insert(), the one with ON CONFLICT."""

    @property
    def reader(self) -> AsyncEngine:
        """Connections that only read, in autocommit."""

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on the one connection that writes, after any other that waits; `work` begins its transactions.

        An exception out of `work` leaves a clean connection for the next. When the caller is cancelled, `work` still
        runs to its end, and the caller learns of the cancellation after that.

        Raises: StoreUnavailable, and whatever `work` raises.
        """

    async def seen(self, subscription: str, event_ids: Sequence[str]) -> set[str]:
        """Which of these are in the inbox, by one statement whatever their number."""

    def claim(self, connection: Connection, subscription: str, types: Mapping[str, str], at: str) -> set[str]:
        """Put event ids with their types into the inbox; those that were not there before. In a transaction.

        Raises: RowRejected when the database can't keep some id or type as it is.
        """

    def insert_rows(self, connection: Connection, statement: RowsStatement, rows: Sequence[Values]) -> None:
        """Run the statement for all rows, in as few steps as can be. In a transaction."""

    def forget(self, connection: Connection, table: Table, subscription: str, keys: Sequence[str]) -> None:
        """Delete the subscription's rows with these keys from one of the library's tables, by one statement."""

    def fault(self, error: BaseException) -> StoreUnavailable | None:
        """The error as the database's own trouble, or None when what was written is to blame."""

    async def close(self) -> None:
        """Close every connection."""


async def read(database: Database, statement: Executable) -> list[Any]:
    """All rows of a select, read by a connection that only reads. Raises: StoreUnavailable."""
    with faults_of(database):
        async with database.reader.connect() as connection:
            return list(await connection.execute(statement))


@contextmanager
def faults_of(database: Database) -> Iterator[None]:
    """Turns errors that are the database's own trouble into StoreUnavailable; others pass through."""
    try:
        yield
    except Exception as error:
        if (fault := database.fault(error)) is not None:
            raise fault from error
        raise
