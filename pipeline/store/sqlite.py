"""SQLite as a `Database`: engines, inbox and rows in single steps. In: a URL. Out: `Sqlite`.

Reads go through aiosqlite. Writes go through the same SQLite on a thread of their own, a whole transaction at a time;
in WAL mode readers and the writer pass each other. Wherever the driver steps through rows one by one (executemany,
RETURNING) it lets go of the interpreter's lock at each, and in a busy process gets it back late: 500 rows took seconds.
So rows are written in VALUES lists, and ids travel as one JSON text.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, create_engine, delete, event, func, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import URL
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from pipeline.errors import StoreUnavailable
from pipeline.store.conversion import converters
from pipeline.store.database import faults_of
from pipeline.store.rows import DialectInsert, RowsStatement, Values
from pipeline.store.sqlite_faults import sqlite_fault
from pipeline.store.tables import INBOX
from pipeline.store.thread import ConnectionThread

T = TypeVar("T")

LOCK_TIMEOUT = 5.0  # s to wait for another process's transaction; `?timeout=` in the URL goes before it
READERS = 4  # connections, a thread each
MOST_ROWS = 256  # in one VALUES list; above that a step is long and little is gained
MOST_PARAMETERS = 32_766  # SQLite's own default limit for one statement
PRAGMAS = (
    "synchronous = FULL",  # a commit is on the disk before it returns; in batches that costs little
    "foreign_keys = ON",
    "cache_size = -8192",  # KiB; the inbox of a busy subscription outgrows the 2 MB it has by default
    "journal_size_limit = 67108864",  # bytes the WAL file keeps after a burst
)

_CLAIM = (
    f"INSERT INTO {INBOX.name} (subscription, event_id, event_type, processed_at)"  # noqa: S608 - our own names
    " SELECT ?, key, value, ? FROM json_each(?) WHERE true ON CONFLICT DO NOTHING"
)
_SEEN = (
    f"SELECT json_group_array(event_id) FROM {INBOX.name}"  # noqa: S608 - our own names
    " WHERE subscription = ? AND event_id IN (SELECT value FROM json_each(?))"
)


class Sqlite:
    """One SQLite file. `prepare` is run on every new connection that writes, and makes the tables."""

    def __init__(self, url: URL, prepare: Callable[[Connection], None]) -> None:
        self._path = Path(url.database or "")
        self._name = str(self._path)
        self._prepare = prepare
        self._file: tuple[int, int] | None = None
        timeout: dict[str, Any] = {} if "timeout" in url.query else {"timeout": LOCK_TIMEOUT}
        self._reader = create_async_engine(
            url,
            connect_args=timeout,
            isolation_level="AUTOCOMMIT",
            pool_size=READERS,
            max_overflow=0,
            pool_reset_on_return=None,  # in autocommit there is nothing to roll back
            hide_parameters=True,
        )
        self._writer = create_engine(
            url.set(drivername="sqlite"), connect_args=timeout, poolclass=NullPool, hide_parameters=True
        )
        event.listen(self._reader.sync_engine, "connect", self._reader_opened)
        event.listen(self._reader.sync_engine, "checkout", self._reader_taken)
        event.listen(self._writer, "connect", _writer_opened)
        # The lock is taken at the start: a transaction that reads first can't have it once another has written.
        event.listen(self._writer, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        self._thread = ConnectionThread(self._connect, self._same_file, f"store {self._path.name}")
        self._bulk: dict[RowsStatement, _Bulk] = {}

    @property
    def insert(self) -> DialectInsert:
        """SQLite's insert()."""
        return insert

    @property
    def reader(self) -> AsyncEngine:
        """Connections of aiosqlite, to read by."""
        return self._reader

    async def write(self, work: Callable[[Connection], T]) -> T:
        """See `Database.write`."""
        return await self._thread.run(work)

    async def seen(self, subscription: str, event_ids: Sequence[str]) -> set[str]:
        """See `Database.seen`. One crossing to aiosqlite's thread; the answer is one row."""
        if not self._same_file():
            await self.write(lambda connection: None)  # connects anew, which makes the tables
        with faults_of(self):
            async with self._reader.connect() as connection:
                raw = await connection.get_raw_connection()
                driver: Any = raw.driver_connection
                ((found,),) = await driver.execute_fetchall(_SEEN, (subscription, json.dumps(event_ids)))
        return set(json.loads(found))

    def claim(self, connection: Connection, subscription: str, types: Mapping[str, str], at: str) -> set[str]:
        """See `Database.claim`. A duplicate here is rare, the worker has looked before: only then it is looked up."""
        cursor = connection.connection.cursor()
        cursor.execute("SAVEPOINT claim")
        cursor.execute(_CLAIM, (subscription, at, json.dumps(types)))
        fresh = set(types)
        if cursor.rowcount != len(types):
            cursor.execute("ROLLBACK TO claim")
            cursor.execute(_SEEN, (subscription, json.dumps(list(types))))
            ((found,),) = cursor.fetchall()
            fresh.difference_update(json.loads(found))
            cursor.execute(_CLAIM, (subscription, at, json.dumps({key: types[key] for key in types if key in fresh})))
        cursor.execute("RELEASE claim")
        cursor.close()
        return fresh

    def insert_rows(self, connection: Connection, statement: RowsStatement, rows: Sequence[Values]) -> None:
        """See `Database.insert_rows`."""
        if not statement.plain:
            lent = {key: value for key, value in statement.columns.items() if value is not None}
            insert_them = statement.statement.values(lent) if lent else statement.statement
            connection.execute(insert_them, [dict(zip(statement.parameters, row, strict=True)) for row in rows])
            return
        if (bulk := self._bulk.get(statement)) is None:
            bulk = self._bulk[statement] = _Bulk(statement, connection)
        bulk.execute(connection, rows)

    def forget(self, connection: Connection, table: Table, subscription: str, keys: Sequence[str]) -> None:
        """See `Database.forget`."""
        ours, key = table.primary_key.columns
        given = select(func.json_each(json.dumps(list(keys))).table_valued("value").c.value)
        connection.execute(delete(table).where(ours == subscription, key.in_(given)))

    def fault(self, error: BaseException) -> StoreUnavailable | None:
        """See `Database.fault`."""
        return sqlite_fault(error, self._name)

    async def close(self) -> None:
        """See `Database.close`."""
        await self._thread.close()
        self._writer.dispose()
        await self._reader.dispose()

    def _connect(self) -> Connection:
        with faults_of(self):
            connection = self._writer.connect()
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
        self._file = _identity(self._path)
        return connection

    def _same_file(self) -> bool:
        """False when the file was deleted or replaced: what is written to the open one would be lost."""
        return self._file == _identity(self._path)

    def _reader_opened(self, _connection: Any, record: Any) -> None:
        record.info["file"] = _identity(self._path)

    def _reader_taken(self, _connection: Any, record: Any, _proxy: Any) -> None:
        if record.info["file"] != _identity(self._path):
            raise DisconnectionError  # SQLAlchemy's way to ask for a new connection


class _Bulk:
    """A statement with 1, 2, 4, … rows in its VALUES list: few texts, kept prepared by the driver, serve any number."""

    def __init__(self, statement: RowsStatement, connection: Connection) -> None:
        self._statement = statement
        self._dialect = connection.dialect
        self._width = len(statement.parameters)
        self._most = min(MOST_ROWS, MOST_PARAMETERS // self._width)
        self._texts: dict[int, str] = {}
        self._converters = converters(statement, self._dialect)

    def execute(self, connection: Connection, rows: Sequence[Values]) -> None:
        """Write the rows, in their order."""
        width = self._width
        values = list(chain.from_iterable(rows))
        for convert in self._converters:
            values[convert.place :: width] = convert(values[convert.place :: width])
        cursor = connection.connection.cursor()
        done, left = 0, len(rows)
        while left:
            size = min(self._most, 1 << (left.bit_length() - 1))
            cursor.execute(self._texts.get(size) or self._text(size), values[done * width : (done + size) * width])
            done, left = done + size, left - size
        cursor.close()

    def _text(self, size: int) -> str:
        rows = [dict(self._statement.columns)] * size
        compiled = self._statement.statement.inline().values(rows).compile(dialect=self._dialect)
        text = self._texts[size] = str(compiled)
        return text


def _writer_opened(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions behind SQLAlchemy's back
    cursor = connection.cursor()
    _write_ahead(cursor)
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _write_ahead(cursor: Any) -> None:
    """Switch the file to WAL mode, which is done once in its life.

    Of two connections that switch a new file at once, SQLite refuses one without calling its busy handler: each would
    wait for the other's read lock. So the wait that `timeout` promises is ours here.
    """
    ((milliseconds,),) = cursor.execute("PRAGMA busy_timeout").fetchall()
    patient = Retrying(
        retry=retry_if_exception(_is_busy),
        stop=stop_after_delay(milliseconds / 1000),
        wait=wait_random(0.001, 0.02),
        reraise=True,
    )
    patient(cursor.execute, "PRAGMA journal_mode = WAL")


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
