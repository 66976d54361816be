"""Trouble with PostgreSQL: server or network fail, a batch is whole or not there, and it goes on once they are back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import asyncpg
import pytest
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlmodel import col

from pipeline.errors import StoreUnavailable
from pipeline.store import CommitReport, Counts, Store
from pipeline.store.postgres_faults import TROUBLE, postgres_fault
from tests.store.conftest import effects
from tests.store.models import TABLES, Account, Gated, Payment
from tests.store.places import PostgresDatabase, eventually
from tests.store.postgres_events import batch, driver, reading_driver
from tests.support.postgres import Server
from tests.support.proxy import proxy_to

OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
HOLDER = "SELECT pid FROM pg_locks WHERE relation = 'gated'::regclass AND granted AND mode = 'ExclusiveLock'"


@pytest.fixture
def place(ready_place: PostgresDatabase) -> PostgresDatabase:
    """A database that has the tables."""
    return ready_place


async def patiently(commit: Callable[[], Awaitable[CommitReport]]) -> CommitReport:
    """As a worker does: again and again while the database is away."""
    async with asyncio.timeout(30):
        while True:
            with suppress(StoreUnavailable):
                return await commit()
            await asyncio.sleep(0.01)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process of the server's that does nothing: if it ended first, who waits for its lock would have it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


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
        with frozen(fragile_place.look(HOLDER)[0][0]):
            ending = asyncio.create_task(asyncio.to_thread(end, server))
            with pytest.raises(StoreUnavailable, match="can't be used"):
                await commit
        await ending

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
