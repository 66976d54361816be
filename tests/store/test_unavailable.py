"""When the database is in trouble no event is at fault: StoreUnavailable, nothing half done, and it mends by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, text
from sqlmodel import select

from pipeline.errors import StoreUnavailable
from pipeline.store import CommitReport, Counts, Store
from tests.store.conftest import Look, effects
from tests.store.models import TABLES, Gated, Ledger, Payment
from tests.store.places import GateKeeper, Place


@pytest.fixture
def gate(place: Place, store: Store) -> Iterator[GateKeeper]:
    """The gate, closed; open afterwards."""
    with place.gate() as keeper:
        yield keeper


async def test_a_lock_that_lasts_too_long(place: Place) -> None:
    batch = [effects(Payment(order_id=1, customer="x"), event_id="a")]
    store = await Store.open(place.impatient, "payments", TABLES)

    # given another program that holds the lock beyond the timeout, a batch can't be committed
    with place.locked():
        with pytest.raises(StoreUnavailable, match="another process holds"):
            await store.commit(batch)
        # and nothing is
        assert await store.seen(["a"]) == set()

    # when the lock is gone, then the same batch is committed
    assert await store.commit(batch) == CommitReport(["a"], set(), {})
    await store.close()


async def test_a_lock_that_passes_in_time(store: Store, place: Place) -> None:
    # given another program's transaction that ends soon
    with place.locked() as lock:
        commit = asyncio.create_task(store.commit([effects(event_id="a")]))
        asyncio.get_running_loop().call_later(0.1, lock.release)

        # when a batch is committed meanwhile, then it waits
        assert (await commit).processed == ["a"]


async def test_reading_goes_on_while_another_writes(store: Store, place: Place) -> None:
    await store.commit([effects(Payment(order_id=1, customer="x"), event_id="a")])

    with place.locked():
        assert await store.seen(["a"]) == {"a"}
        assert await store.query(select(Payment.customer)) == ["x"]
        assert await store.counts() == Counts(1, 0, 0)


async def test_a_cancelled_commit_leaves_a_clean_connection(store: Store, gate: GateKeeper, look: Look) -> None:
    # given a commit that is in the middle of its transaction
    batch = [effects(Payment(order_id=1, customer="x"), Gated(id=1, word="x"), event_id="a")]
    commit = asyncio.create_task(store.commit(batch))
    await gate.reached()

    # when it is cancelled
    commit.cancel()
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await commit

    # then the transaction has ended all the same, whole
    assert await store.seen(["a"]) == {"a"}
    assert look("SELECT order_id FROM payment") == look("SELECT id FROM gated") == [(1,)]

    # and the next commit finds a connection that is free
    report = await store.commit([effects(event_id="a"), effects(event_id="b")])
    assert report == CommitReport(["b"], {"a"}, {})


async def test_a_cancelled_commit_that_is_refused_leaves_nothing(store: Store, gate: GateKeeper, look: Look) -> None:
    # given a commit in the middle of its transaction, with a row that will be refused
    batch = [effects(Gated(id=1, word="x"), Payment(order_id=1, customer="x"), Payment(order_id=1, customer="x"))]
    commit = asyncio.create_task(store.commit(batch))
    await gate.reached()

    # when it is cancelled
    commit.cancel()
    gate.open()
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


async def test_lost_tables_of_the_library_are_not_the_events_fault(store: Store, look: Look) -> None:
    # given a database from which somebody dropped the library's tables
    look("DROP TABLE pipeline_result")
    batch = [effects(event_id="a", result=b"1")]
    with pytest.raises(StoreUnavailable, match="pipeline_result"):
        await store.commit(batch)

    # then they are made again with the next connection, and the batch is committed
    assert (await store.commit(batch)).processed == ["a"]


async def test_more_queries_than_connections_wait_for_each_other(store: Store) -> None:
    await store.commit([effects(Payment(order_id=1, customer="x"))])

    found = await asyncio.gather(*(store.query(select(Payment.customer)) for _ in range(50)))

    assert found == [["x"]] * 50


async def test_closing_waits_for_what_is_under_way(url: str, gate: GateKeeper, look: Look) -> None:
    # given a commit in the middle of its transaction
    store = await Store.open(url, "payments", TABLES)
    commit = asyncio.create_task(store.commit([effects(Gated(id=1, word="x"), event_id="a")]))
    await gate.reached()

    # when the store is closed meanwhile
    close = asyncio.create_task(store.close())
    gate.open()
    await close

    # then the commit is whole
    assert (await commit).processed == ["a"]
    assert look("SELECT event_id FROM pipeline_inbox") == [("a",)]
