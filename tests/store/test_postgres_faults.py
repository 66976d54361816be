"""Trouble with PostgreSQL: whatever happens to server, network and locks, a batch is whole or not there."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import asyncpg
import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlmodel import col

from pipeline.errors import StoreUnavailable
from pipeline.store import CommitReport, Counts, Store, Upsert
from pipeline.store.postgres_faults import TROUBLE, postgres_fault
from tests.store.conftest import effects
from tests.store.models import TABLES, Account, Gated, Payment
from tests.store.places import PostgresDatabase, eventually
from tests.support.postgres import Databases, Server
from tests.support.proxy import proxy_to

OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@pytest.fixture
def place(ready_place: PostgresDatabase) -> PostgresDatabase:
    """A database that has the tables."""
    return ready_place


def batch(first: int, size: int = 5) -> list[Any]:
    """Events with a payment and an account each."""
    numbers = range(first, first + size)
    return [effects(Payment(order_id=n, customer="x"), Account(id=n, amount=n), event_id=f"b{n}") for n in numbers]


async def patiently(commit: Callable[[], Awaitable[CommitReport]]) -> CommitReport:
    """As a worker does: again and again while the database is away."""
    async with asyncio.timeout(30):
        while True:
            with suppress(StoreUnavailable):
                return await commit()
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("end", [Server.crash, Server.stop], ids=["crash", "stop"])
async def test_a_server_that_ends_in_the_middle_of_a_commit(
    fragile_place: PostgresDatabase, end: Callable[[Server], None]
) -> None:
    # given a commit in the middle of its transaction
    server = fragile_place.databases.server
    store = await Store.open(fragile_place.url, "payments", TABLES)
    await store.commit(batch(0))
    events = [*batch(10), effects(Gated(id=1, word="x"), event_id="gated")]
    with fragile_place.gate() as gate:
        commit = asyncio.create_task(store.commit(events))
        await gate.reached()

        # when the server ends, then that is nobody's fault
        await asyncio.to_thread(end, server)
        with pytest.raises(StoreUnavailable, match="can't be used"):
            await commit

    # and as long as it is away, it says so
    for attempt in (store.commit(events), store.seen(["b0"]), store.query(select(Payment)), store.counts()):
        with pytest.raises(StoreUnavailable, match=r"can't be reached.*check that PostgreSQL runs there"):
            await attempt

    # when it is back, then nothing of the batch was there, and now all of it is
    await asyncio.to_thread(server.start)
    assert await store.seen([event.event_id for event in events]) == set()
    assert (await store.commit(events)).processed == [event.event_id for event in events]
    assert await store.counts() == Counts(11, 0, 0)
    assert len(await store.query(select(Payment))) == len(await store.query(select(Account))) == 10
    await store.close()


async def test_a_server_that_crashes_at_any_moment_keeps_every_batch_whole(fragile_place: PostgresDatabase) -> None:
    # given a store that commits batch after batch, patiently
    server = fragile_place.databases.server
    store = await Store.open(fragile_place.url, "payments", TABLES)
    done: list[int] = []

    async def work() -> None:
        for first in range(0, 3000, 10):
            report = await patiently(partial(store.commit, batch(first, 10)))
            assert len(report.processed) + len(report.duplicates) == 10
            assert report.rejected == {}
            done.append(first)

    def enough(number: int) -> bool:
        return len(done) >= number

    # when the server crashes again and again meanwhile
    working = asyncio.create_task(work())
    for crashes in range(1, 4):
        await eventually(partial(enough, 50 * crashes), "batches committed")
        await asyncio.to_thread(server.crash)
        await asyncio.to_thread(server.start)
    await working

    # then every event is there, once, with all that belongs to it
    assert await store.counts() == Counts(3000, 0, 0)
    numbers = list(range(3000))
    assert await store.query(select(col(Payment.order_id)).order_by(col(Payment.order_id))) == numbers
    assert await store.query(select(col(Account.id)).order_by(col(Account.id))) == numbers
    await store.close()


async def test_connections_that_the_server_ends_while_they_are_idle(store: Store, place: PostgresDatabase) -> None:
    # given connections that were used
    await store.commit(batch(0))
    assert await store.seen(["b0"]) == {"b0"}
    drivers = [await driver(store), await reading_driver(store)]

    # when the server ends them, as it does after its idle_session_timeout
    place.look(f"SELECT pg_terminate_backend(pid) {OTHERS}")
    await eventually(lambda: all(each.is_closed() for each in drivers), "connections closed")

    # then nobody notices
    assert await store.seen(["b0"]) == {"b0"}
    assert (await store.commit(batch(10))).processed == [f"b{n}" for n in range(10, 15)]
    assert len(await store.query(select(Payment))) == 10


async def driver(store: Store) -> Any:
    """The connection that writes."""
    return await store._database.write(lambda connection: connection.connection.driver_connection)  # noqa: SLF001


async def reading_driver(store: Store) -> Any:
    """A connection that reads."""
    async with store._database.reader.connect() as connection:  # noqa: SLF001
        assert connection.sync_connection is not None
        return connection.sync_connection.connection.driver_connection


async def test_a_connection_that_is_ended_in_the_middle_of_a_commit(store: Store, place: PostgresDatabase) -> None:
    # given a commit in the middle of its transaction
    events = [*batch(0), effects(Gated(id=1, word="x"), event_id="gated")]
    with place.gate() as gate:
        commit = asyncio.create_task(store.commit(events))
        await gate.reached()

        # when an administrator ends its connection
        place.look(f"SELECT pg_terminate_backend(pid) {OTHERS} AND wait_event_type = 'Lock'")

        # then it fails, and nothing of it is there
        with pytest.raises(StoreUnavailable, match="terminating connection"):
            await commit
    assert await store.counts() == Counts(0, 0, 0)

    # and the next one works
    assert len((await store.commit(events)).processed) == 6


async def test_a_network_that_swallows_everything(place: PostgresDatabase) -> None:
    # given a store behind a network that works, and then does not, without anybody being told
    async with proxy_to(place.database.url) as proxy:
        url = proxy.url.replace("amqp://", "postgresql://")
        store = await Store.open(f"{url}?timeout=0.5&command_timeout=0.1&sslmode=disable", "payments", TABLES)
        await store.commit(batch(0))
        await store.seen(["b0"])
        proxy.stall()

        # when something is committed, looked up and asked for, then each gives up after a while
        attempts = (store.commit(batch(10)), store.seen(["b0"]), store.query(select(Payment)))
        for outcome in await asyncio.gather(*attempts, return_exceptions=True):
            assert isinstance(outcome, StoreUnavailable)
            assert "got no answer in time" in str(outcome) or "no answer within" in str(outcome)

        # when the network is back, then all goes on
        proxy.resume()
        report = await patiently(partial(store.commit, batch(10)))
        assert len(report.processed) + len(report.duplicates) == 5
        assert await store.counts() == Counts(10, 0, 0)
        await store.close()


async def test_too_many_connections(place: PostgresDatabase, databases: Databases) -> None:
    # given a user who may have one connection at a time, and a store that has it
    user = f"u_{secrets.token_hex(4)}"
    databases.run(f"CREATE ROLE {user} SUPERUSER LOGIN PASSWORD 'pw' CONNECTION LIMIT 1")
    databases.run(f"ALTER ROLE {user} NOSUPERUSER")
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


@pytest.mark.parametrize("state", sorted(TROUBLE))
def test_every_kind_of_trouble_is_recognised(state: str) -> None:
    # given PostgreSQL's error, bare or wrapped by SQLAlchemy
    error: Any = asyncpg.PostgresError.new({"S": "ERROR", "C": state.ljust(5, "0"), "M": "words"})
    for raised in (error, DBAPIError("SELECT 1", None, error)):
        fault = postgres_fault(raised, "the database")

        assert isinstance(fault, StoreUnavailable)
        assert str(fault).endswith(TROUBLE[state])


@pytest.mark.parametrize("state", ["23505", "22001", "42P01", "42703", "54000", "P0001", "0A000", "XX000"])
def test_what_was_written_is_never_taken_for_trouble(state: str) -> None:
    error: Any = asyncpg.PostgresError.new({"S": "ERROR", "C": state, "M": 'relation "payment"'})

    assert postgres_fault(error, "x") is None
    assert postgres_fault(OSError("a handler's own"), "x") is None
