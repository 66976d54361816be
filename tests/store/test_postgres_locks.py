"""Locks, limits and deadlines of PostgreSQL: what stands in the way of a batch passes, and is no event's fault."""

from __future__ import annotations

import asyncio
import secrets

import pytest
from sqlalchemy import func, select, text, update
from sqlmodel import col

from pipeline.errors import StoreUnavailable
from pipeline.store import CommitReport, Store, Upsert
from tests.store.conftest import effects
from tests.store.models import TABLES, Gated, Payment
from tests.store.places import PostgresDatabase, eventually
from tests.store.postgres_events import batch, driver
from tests.support.postgres import Databases

ADVISORY = (
    "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
    " WHERE locktype = 'advisory' AND datname = current_database()"
)


@pytest.fixture
def place(ready_place: PostgresDatabase) -> PostgresDatabase:
    """A database that has the tables."""
    return ready_place


async def test_too_many_connections(place: PostgresDatabase, databases: Databases) -> None:
    # given a user who may have one connection at a time, and a store that has it
    user = f"u_{secrets.token_hex(4)}"
    databases.run(f"CREATE ROLE {user} LOGIN PASSWORD 'pw' CONNECTION LIMIT 1")
    place.look(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {user}")
    store = await Store.open(databases.server.url(place.database.name, user, "pw"), "payments", TABLES)

    # when another is needed, then that is said, and the one it has works on
    with pytest.raises(StoreUnavailable, match=r"too many connections.*raise max_connections"):
        await store.seen(["b0"])
    assert len((await store.commit(batch(0))).processed) == 5

    # and when there is room again, all works
    databases.run(f"ALTER ROLE {user} CONNECTION LIMIT 2")
    assert await store.seen(["b0"]) == {"b0"}
    await store.close()
    place.look(f"DROP OWNED BY {user}")
    databases.run(f"DROP ROLE {user}")


HOLD_AN_ID = "INSERT INTO pipeline_inbox VALUES ('payments', '{}', 't', 'now')"
HOLD_A_ROW = "UPDATE payment SET note = 'other' WHERE order_id = {}"


async def test_ids_are_claimed_in_one_order_whatever_the_batch(store: Store, place: PostgresDatabase) -> None:
    # given another worker that has claimed an id
    with place.holding(HOLD_AN_ID.format("e2")) as other:
        # when a batch comes with ids before and after it, in another order
        commit = asyncio.create_task(store.commit([effects(event_id=name) for name in ("e3", "e2", "e1")]))
        await eventually(lambda: place.waiting() == 1, "it waits")

        # then it waits for that id and holds none beyond: the other can go on to them, and they don't deadlock
        other.run(HOLD_AN_ID.format("e3"))
        other.release()
        assert await commit == CommitReport(["e1"], {"e2", "e3"}, {})


async def test_rows_are_upserted_in_one_order_whatever_the_batch(store: Store, place: PostgresDatabase) -> None:
    # given another worker that has changed a row
    await store.commit(batch(0))
    with place.holding(HOLD_A_ROW.format(2)) as other:
        # when a batch upserts rows before and after it, in another order
        upserts = [effects(Upsert(Payment(order_id=number, customer="mine"))) for number in (3, 2, 1)]
        commit = asyncio.create_task(store.commit(upserts))
        await eventually(lambda: place.waiting() == 1, "it waits")

        # then it waits for that row and holds none beyond
        other.run(HOLD_A_ROW.format(3))
        other.release()
        assert len((await commit).processed) == 3


async def test_a_deadlock_passes(place: PostgresDatabase) -> None:
    # given a store that is quick to look for deadlocks, and two rows
    store = await Store.open(f"{place.url}&deadlock_timeout=50ms", "payments", TABLES)
    await store.commit(batch(0))
    one, two = (update(Payment).where(col(Payment.order_id) == n).values(note="mine") for n in (1, 2))
    events = [effects(one, Gated(id=1, word="x"), two, event_id="a")]

    # when a program holds the second row and wants the first, while a commit holds the first and wants the second
    other = place.databases.sessions.open(place.database.url)
    other.script("BEGIN; UPDATE payment SET note = 'other' WHERE order_id = 2")
    with place.gate() as gate:
        commit = asyncio.create_task(store.commit(events))
        await gate.reached()
        wants = asyncio.create_task(
            asyncio.to_thread(other.run, "UPDATE payment SET note = 'other' WHERE order_id = 1")
        )
        await eventually(lambda: place.waiting() == 2, "both wait")
        gate.open()

        # then the server ends one of them, which is nobody's fault
        with pytest.raises(StoreUnavailable, match=r"deadlock detected.*it passes"):
            await commit
        await wants
    other.script("COMMIT")
    connection = await driver(store)

    # and the next try gets through, on the same connection
    assert (await store.commit(events)).processed == ["a"]
    assert await driver(store) is connection
    assert place.look("SELECT note FROM payment WHERE order_id IN (1, 2)") == [("mine",), ("mine",)]
    other.close()
    await store.close()


async def test_a_transaction_that_can_not_be_put_into_an_order_passes(place: PostgresDatabase) -> None:
    # given a store whose transactions are serializable, and a program that changes a row
    store = await Store.open(f"{place.url}&default_transaction_isolation=serializable", "payments", TABLES)
    await store.commit(batch(0))
    change = [effects(update(Payment).values(note="mine"), event_id="a")]
    with place.holding("UPDATE payment SET note = 'other' WHERE order_id = 1") as lock:
        commit = asyncio.create_task(store.commit(change))
        await eventually(lambda: place.waiting() == 1, "it waits")

        # when that is committed first, then the store's transaction fails, and is nobody's fault
        lock.release()
        with pytest.raises(StoreUnavailable, match=r"could not serialize.*it passes"):
            await commit

    # and the next try gets through
    assert (await store.commit(change)).processed == ["a"]
    await store.close()


async def test_a_statement_that_takes_too_long(place: PostgresDatabase) -> None:
    # given a store whose statements may take 0.2 s
    store = await Store.open(f"{place.url}&command_timeout=0.2", "payments", TABLES)
    slow = update(Payment).where(text("pg_sleep(5) IS NOT NULL")).values(note="x")
    await store.commit(batch(0))

    # when one takes longer, then the server ends it, and it is nobody's fault
    with pytest.raises(StoreUnavailable, match=r"took too long.*\?command_timeout="):
        await store.commit([effects(slow, event_id="a")])
    with pytest.raises(StoreUnavailable, match=r"took too long.*\?command_timeout="):
        await store.query(select(func.pg_sleep(5)))

    # and the connections are as good as before
    assert await store.seen(["a"]) == set()
    assert len((await store.commit(batch(10))).processed) == 5
    await store.close()


async def test_queries_that_are_cancelled_leave_clean_connections(store: Store) -> None:
    # given more queries than there are connections
    await store.commit(batch(0))
    for _ in range(8):
        query = asyncio.create_task(store.query(select(func.pg_sleep(30))))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(query, 0.05)

    # when all were cancelled, then others find connections
    found = await asyncio.gather(*(store.query(select(func.count()).select_from(Payment)) for _ in range(8)))
    assert found == [[5]] * 8


async def test_a_lock_in_the_way_of_the_tables_leaves_none_behind(place: PostgresDatabase) -> None:
    # given a store whose connection was ended, and a program that changes a table of the library
    store = await Store.open(place.impatient, "payments", TABLES)
    (await driver(store)).terminate()
    with place.holding("LOCK TABLE pipeline_inbox IN ACCESS EXCLUSIVE MODE"):
        # when the store connects anew, then it can't look after its tables
        with pytest.raises(StoreUnavailable, match="another process holds a lock"):
            await store.commit(batch(0))

        # and holds up no other that wants to look after theirs
        await eventually(lambda: place.look(ADVISORY) == [(0,)], "no advisory lock")
    assert len((await store.commit(batch(0))).processed) == 5
    await store.close()
