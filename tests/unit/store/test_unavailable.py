"""When the database is in trouble no event is at fault: StoreUnavailable, nothing half done, and it mends by itself."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError
from sqlmodel import select

from pipeline.errors import StoreUnavailable
from pipeline.store import CommitReport, Counts, Store
from pipeline.store.sqlite_faults import TROUBLE, sqlite_fault
from tests.unit.store.conftest import Look, effects
from tests.unit.store.models import TABLES, Gate, Gated, Ledger, Payment


@contextmanager
def locked(file: Path) -> Iterator[sqlite3.Connection]:
    """Another program's transaction that holds the write lock."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


@pytest.fixture
def gate() -> Iterator[type[Gate]]:
    """The gate, closed; open afterwards."""
    Gate.reached.clear()
    Gate.opened.clear()
    yield Gate
    Gate.opened.set()


def no_room(connection: Connection) -> None:
    """SQLite takes the least limit it can: the size the file has."""
    with connection.begin():
        connection.exec_driver_sql("PRAGMA max_page_count = 1")


async def test_a_lock_that_lasts_too_long(store: Store, file: Path) -> None:
    batch = [effects(Payment(order_id=1, customer="x"), event_id="a")]

    # given another program that holds the lock beyond the timeout, a batch can't be committed
    with locked(file):
        with pytest.raises(StoreUnavailable, match=r"payments\.db .*database is locked.*another process"):
            await store.commit(batch)
        # and nothing is
        assert await store.seen(["a"]) == set()

    # when the lock is gone, then the same batch is committed
    assert await store.commit(batch) == CommitReport(["a"], set(), {})


async def test_a_lock_that_passes_in_time(store: Store, file: Path) -> None:
    # given another program's transaction that ends soon
    with locked(file) as other:
        asyncio.get_running_loop().call_later(0.1, other.execute, "COMMIT")

        # when a batch is committed meanwhile, then it waits
        assert (await store.commit([effects(event_id="a")])).processed == ["a"]
        assert not other.in_transaction


async def test_reading_goes_on_while_another_writes(store: Store, file: Path) -> None:
    await store.commit([effects(Payment(order_id=1, customer="x"), event_id="a")])

    with locked(file):
        assert await store.seen(["a"]) == {"a"}
        assert await store.query(select(Payment.customer)) == ["x"]
        assert await store.counts() == Counts(1, 0, 0)


async def test_a_full_disk(store: Store) -> None:
    # given a database that can't grow any more
    await store.commit([effects(event_id="first")])
    await store._database.write(no_room)  # noqa: SLF001
    batch = [effects(Payment(order_id=number, customer="x" * 4000)) for number in range(100)]

    # when a batch is committed that does not fit in, then it is nobody's fault
    with pytest.raises(StoreUnavailable, match=r"disk is full.*make room"):
        await store.commit(batch)
    assert await store.counts() == Counts(1, 0, 0)

    # and when there is room again (the limit was that connection's) it is committed
    assert len((await store.commit(batch)).processed) == 100


async def test_a_cancelled_commit_leaves_a_clean_connection(store: Store, gate: type[Gate], look: Look) -> None:
    # given a commit that is in the middle of its transaction
    batch = [effects(Payment(order_id=1, customer="x"), Gated(id=1, word="x"), event_id="a")]
    commit = asyncio.create_task(store.commit(batch))
    assert await asyncio.to_thread(gate.reached.wait, 10)

    # when it is cancelled
    commit.cancel()
    gate.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await commit

    # then the transaction has ended all the same, whole
    assert await store.seen(["a"]) == {"a"}
    assert look("SELECT order_id FROM payment") == look("SELECT id FROM gated") == [(1,)]

    # and the next commit finds a connection that is free
    report = await store.commit([effects(event_id="a"), effects(event_id="b")])
    assert report == CommitReport(["b"], {"a"}, {})


async def test_a_cancelled_commit_that_is_refused_leaves_nothing(store: Store, gate: type[Gate], look: Look) -> None:
    # given a commit in the middle of its transaction, with a row that will be refused
    batch = [effects(Gated(id=1, word="x"), Payment(order_id=1, customer="x"), Payment(order_id=1, customer="x"))]
    commit = asyncio.create_task(store.commit(batch))
    assert await asyncio.to_thread(gate.reached.wait, 10)

    # when it is cancelled
    commit.cancel()
    gate.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await commit

    # then nothing of it is left, and the next commit works
    assert look("SELECT order_id FROM payment") == look("SELECT id FROM gated") == []
    assert (await store.commit([effects(event_id="b")])).processed == ["b"]


async def test_an_error_that_is_not_a_database_error_leaves_a_clean_connection(store: Store) -> None:
    # given work on the connection that fails in the middle of a transaction, as a bug of ours would
    def broken(connection: Connection) -> None:
        connection.begin()
        connection.execute(text("INSERT INTO ledger (text) VALUES ('half')"))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store._database.write(broken)  # noqa: SLF001

    # then the next commit works, and the half is not there
    assert (await store.commit([effects(event_id="a")])).processed == ["a"]
    assert await store.query(select(Ledger)) == []


async def test_a_file_that_is_deleted_is_made_anew(store: Store, file: Path, look: Look) -> None:
    # given a store whose folder somebody deletes and makes again
    await store.commit([effects(event_id="a")])
    assert await store.seen(["a"]) == {"a"}
    shutil.rmtree(file.parent)
    with pytest.raises(StoreUnavailable, match=r"unable to open database file.*folder is there"):
        await store.commit([effects(event_id="b")])
    file.parent.mkdir()

    # when a batch is looked up and committed, then in the file that is there now, not in the one that is gone
    assert await store.seen(["a"]) == set()
    assert (await store.commit([effects(Payment(order_id=1, customer="x"), event_id="c")])).processed == ["c"]
    assert look("SELECT order_id FROM payment") == [(1,)]
    assert await store.counts() == Counts(1, 0, 0)


async def test_lost_tables_of_the_library_are_not_the_events_fault(store: Store, look: Look) -> None:
    # given a database from which somebody dropped the library's tables
    look("DROP TABLE pipeline_result")
    batch = [effects(event_id="a", result=b"1")]
    with pytest.raises(StoreUnavailable, match="no such table: pipeline_result"):
        await store.commit(batch)

    # then they are made again with the next connection, and the batch is committed
    assert (await store.commit(batch)).processed == ["a"]


async def test_more_queries_than_connections_wait_for_each_other(store: Store) -> None:
    await store.commit([effects(Payment(order_id=1, customer="x"))])

    found = await asyncio.gather(*(store.query(select(Payment.customer)) for _ in range(50)))

    assert found == [["x"]] * 50


@pytest.mark.parametrize("code", sorted(TROUBLE))
def test_every_kind_of_trouble_is_recognised_with_its_extended_codes(code: int) -> None:
    # given SQLite's error, bare or wrapped by SQLAlchemy, with more detail in its upper bits
    error = sqlite3.OperationalError("words")
    error.sqlite_errorcode = code | (3 << 8)

    for raised in (error, OperationalError("SELECT 1", None, error)):
        fault = sqlite_fault(raised, "the.db")

        assert isinstance(fault, StoreUnavailable)
        assert str(fault) == f"the database the.db can't be used (words): {TROUBLE[code]}"


@pytest.mark.parametrize(
    "code", [sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_ERROR]
)
def test_what_was_written_is_never_taken_for_trouble(code: int) -> None:
    error = sqlite3.DatabaseError("UNIQUE constraint failed: payment.id")
    error.sqlite_errorcode = code

    assert sqlite_fault(error, "the.db") is None


async def test_closing_waits_for_what_is_under_way(url: str, gate: type[Gate], look: Look) -> None:
    # given a commit in the middle of its transaction
    store = await Store.open(url, "payments", TABLES)
    commit = asyncio.create_task(store.commit([effects(Gated(id=1, word="x"), event_id="a")]))
    assert await asyncio.to_thread(gate.reached.wait, 10)

    # when the store is closed meanwhile
    close = asyncio.create_task(store.close())
    gate.opened.set()
    await close

    # then the commit is whole
    assert (await commit).processed == ["a"]
    assert look("SELECT event_id FROM pipeline_inbox") == [("a",)]
