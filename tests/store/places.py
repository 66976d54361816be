"""Where a store can be: an SQLite file, a PostgreSQL database. In: where to make one. Out: a `Place` to test in.

A place offers what tests do behind the library's back: look into the tables, hold a lock, hold up a transaction.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from tests.store.models import Gate
from tests.support.postgres import Database, Databases

Row: TypeAlias = tuple[Any, ...]
DEADLINE = 10.0  # s for a transaction to reach what holds it up
POLL = 0.01  # s
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait until the condition holds; fails after the deadline, saying `what` never came."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE:g} s: {what}"
        await asyncio.sleep(POLL)


@dataclass(frozen=True, slots=True)
class Lock:
    """Another program's transaction that holds a lock. `run` does more in it, `release` ends it."""

    run: Callable[[str], object]
    release: Callable[[], object]


class Place(Protocol):
    """A database for one test. The `url` is that of the subscription "payments"."""

    @property
    def kind(self) -> str:
        """SQLAlchemy's name of it."""

    @property
    def url(self) -> str:
        """For stores and processes that wait for each other on a busy machine."""

    @property
    def impatient(self) -> str:
        """For a store that waits 0.2 s for a lock."""

    def look(self, sql: str, *parameters: Any) -> list[Row]:
        """Rows of a query, or the effect of a statement, through a connection of its own."""

    def beside(self) -> Place:
        """Another place of the same kind, empty."""

    def locked(self) -> AbstractContextManager[Lock]:
        """Another program holds the lock for writing."""

    def gate(self) -> AbstractContextManager[GateKeeper]:
        """Transactions that write into `Gated` are held up there."""


@dataclass(frozen=True, slots=True)
class GateKeeper:
    """Tells when a transaction has reached the gate, and opens it."""

    arrived: Callable[[], bool]
    open: Callable[[], object]

    async def reached(self) -> None:
        """Wait until a transaction is at the gate."""
        await eventually(self.arrived, "a transaction at the gate")


@dataclass(frozen=True, slots=True)
class SqliteFile:
    """A file in a folder that is not made yet."""

    folder: Path
    kind: str = "sqlite"

    @property
    def file(self) -> Path:
        return self.folder / "data" / "payments.db"

    @property
    def url(self) -> str:
        return f"sqlite+aiosqlite:///{self.folder}/data/{{subscription}}.db?timeout=30"

    @property
    def impatient(self) -> str:
        return self.url.replace("timeout=30", "timeout=0.2")

    def look(self, sql: str, *parameters: Any) -> list[Row]:
        with closing(sqlite3.connect(self.file, isolation_level=None)) as connection:
            return connection.execute(sql, parameters).fetchall()

    def beside(self) -> Place:
        return SqliteFile(self.folder / "beside")

    @contextmanager
    def locked(self) -> Iterator[Lock]:
        with closing(sqlite3.connect(self.file, isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield Lock(other.execute, other.commit)

    @contextmanager
    def gate(self) -> Iterator[GateKeeper]:
        Gate.reached.clear()
        Gate.opened.clear()
        try:
            yield GateKeeper(Gate.reached.is_set, Gate.opened.set)
        finally:
            Gate.opened.set()


@dataclass(frozen=True, slots=True)
class PostgresDatabase:
    """A database of the test's own; those `beside` it end with `stack`."""

    database: Database
    databases: Databases
    stack: ExitStack
    kind: str = "postgresql"

    @property
    def url(self) -> str:
        return f"{self.database.url}?timeout=30"

    @property
    def impatient(self) -> str:
        return f"{self.url}&lock_timeout=200ms"

    def look(self, sql: str, *parameters: Any) -> list[Row]:
        return self.database.session.run(sql, *parameters)

    def beside(self) -> Place:
        other = self.stack.enter_context(self.databases.database())
        return PostgresDatabase(other, self.databases, self.stack)

    @contextmanager
    def locked(self) -> Iterator[Lock]:
        producer = "pipeline_event, " if self.look("SELECT to_regclass('pipeline_event')") != [(None,)] else ""
        with self.holding(f"LOCK TABLE {producer}pipeline_inbox IN EXCLUSIVE MODE") as lock:
            yield lock

    @contextmanager
    def gate(self) -> Iterator[GateKeeper]:
        with self.holding("LOCK TABLE gated IN EXCLUSIVE MODE") as lock:
            yield GateKeeper(lambda: self.waiting() == 1, lock.release)

    def waiting(self) -> int:
        """How many transactions wait for another's lock."""
        ((count,),) = self.look(WAITING)
        return int(count)

    @contextmanager
    def holding(self, sql: str) -> Iterator[Lock]:
        """Another program's transaction that has run this."""
        other = self.databases.sessions.open(self.database.url)
        try:
            other.script(f"BEGIN; {sql}")
            yield Lock(other.script, lambda: other.script("COMMIT"))
        finally:
            other.close()
