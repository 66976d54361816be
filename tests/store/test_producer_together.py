"""Accepting in many calls and several processes at once: each event is one, whoever brings it and how often."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StoreUnavailable
from pipeline.store.producer import Acceptance, NewEvent, ProducerStore
from tests.store.conftest import Look
from tests.store.events import event
from tests.store.places import Place, PostgresDatabase
from tests.support.postgres import Databases
from tests.support.topologies import until

ROOM = 1_000_000
ACCEPTED, REPEATED, CONFLICT = Acceptance.ACCEPTED, Acceptance.REPEATED, Acceptance.CONFLICT

EVENTS = st.builds(
    event, st.sampled_from("abcde"), st.sampled_from([b"1", b"2"]), st.sampled_from(["order.created", "order.paid"])
)
CALLS = st.lists(st.lists(EVENTS, min_size=1, max_size=5), min_size=1, max_size=8)  # of concurrent calls
ROUNDS = st.lists(CALLS, min_size=1, max_size=3)


async def rounds_in(url: str, rounds: list[list[list[NewEvent]]], stores: int) -> None:
    """Run each round's calls at once, spread over several stores, and check what the answers promise."""
    opened = [await ProducerStore.open(url) for _ in range(stores)]
    given: dict[str, list[tuple[NewEvent, Acceptance]]] = defaultdict(list)
    try:
        for calls in rounds:
            answers = await asyncio.gather(
                *(opened[place % stores].accept(call, ROOM) for place, call in enumerate(calls))
            )
            for call, answer in zip(calls, answers, strict=True):
                for each, what in zip(call, answer, strict=True):
                    given[each.id].append((each, what))
        waiting = {row.event_id: row for row in await opened[0].waiting(1000)}
        rows = Counter(row.event_id for row in await opened[0].waiting(1000))
        # every id is accepted just once, and waits once, with what was accepted
        assert rows == dict.fromkeys(given, 1)
        for event_id, told in given.items():
            (first,) = (each for each, what in told if what is ACCEPTED)
            assert waiting[event_id].message == first.message
            stored = await opened[0].event(event_id)
            assert stored is not None
            assert (stored.type, stored.payload) == (first.type, first.payload)
            # and all other answers are right about it
            for each, what in told:
                same = (each.type, each.payload) == (first.type, first.payload)
                assert what is (CONFLICT if not same else what)
                assert same or what is CONFLICT
                assert not same or what in (ACCEPTED, REPEATED)
    finally:
        await asyncio.gather(*(store.close() for store in opened))


@settings(max_examples=60, deadline=None)
@given(rounds=ROUNDS, stores=st.integers(1, 3))
def test_any_calls_make_each_event_one_sqlite(rounds: list[list[list[NewEvent]]], stores: int) -> None:
    with TemporaryDirectory() as folder:
        asyncio.run(rounds_in(f"sqlite+aiosqlite:///{Path(folder)}/p.db?timeout=30", rounds, stores))


@settings(max_examples=15, deadline=None)
@given(rounds=ROUNDS, stores=st.integers(1, 3))
def test_any_calls_make_each_event_one_postgresql(
    postgresql_databases: Databases, rounds: list[list[list[NewEvent]]], stores: int
) -> None:
    with ExitStack() as stack:
        database = stack.enter_context(postgresql_databases.database())
        asyncio.run(rounds_in(database.url, rounds, stores))


@pytest.fixture(scope="session")
def postgresql_databases(databases: Databases) -> Databases:
    """A name of its own: each example takes a database from it."""
    return databases


async def test_two_stores_accept_the_same_events_at_once(
    producer: ProducerStore, producer_url: str, look: Look
) -> None:
    # given two gateways, which clients try one after the other with the same 200 events, in different orders
    other = await ProducerStore.open(producer_url)
    ids = [f"e{number}" for number in range(200)]
    calls = [
        store.accept([event(each) for each in order[first : first + 20]], ROOM)
        for first in range(0, 200, 20)
        for store, order in ((producer, ids), (other, ids[::-1]))
    ]

    # when both are at it at once
    answers = await asyncio.gather(*calls)

    # then each event is accepted once and repeated once, and waits once
    assert Counter(each for answer in answers for each in answer) == {ACCEPTED: 200, REPEATED: 200}
    assert look("SELECT count(*), count(DISTINCT event_id) FROM pipeline_outgoing") == [(200, 200)]
    await other.close()


async def test_whoever_comes_second_with_other_content_hears_of_it(place: Place, producer_url: str) -> None:
    # given two gateways that bring different events under one id, while the first commit is held up
    one, two = await ProducerStore.open(producer_url), await ProducerStore.open(producer_url)
    with place.locked() as lock:
        both = [
            asyncio.create_task(one.accept([event("a", b"1"), event("b")], ROOM)),
            asyncio.create_task(two.accept([event("b"), event("a", b"2")], ROOM)),
        ]
        await asyncio.sleep(0.05)
        lock.release()
        first, second = await asyncio.gather(*both)

    # then for each id one is accepted, and the other is told the truth
    assert sorted([first[0].value, second[1].value]) == ["accepted", "conflict"]
    assert sorted([first[1].value, second[0].value]) == ["accepted", "repeated"]
    await asyncio.gather(one.close(), two.close())


async def test_a_row_that_appears_behind_others_is_not_passed_over(
    producer: ProducerStore, producer_url: str, look: Look
) -> None:
    # given a row with a smaller number than one that is published already, as a transaction that began earlier leaves
    await producer.accept([event(str(number)) for number in range(3)], ROOM)
    look("UPDATE pipeline_outgoing SET seq = seq + 100 WHERE event_id <> '0'")
    late = look("SELECT event_id, exchange, routing_key, body, properties, created_at FROM pipeline_outgoing")[0]
    look("DELETE FROM pipeline_outgoing WHERE event_id = '0'")
    await producer.mark_published(await producer.waiting(1))
    number = "?" if producer_url.startswith("sqlite") else "$"
    places = ", ".join(number if number == "?" else f"${place}" for place in range(1, 7))
    overriding = "" if number == "?" else "OVERRIDING SYSTEM VALUE"
    look(
        "INSERT INTO pipeline_outgoing (seq, event_id, exchange, routing_key, body, properties, created_at)"  # noqa: S608
        f" {overriding} VALUES (7, {places})",
        *late,
    )

    # when it is read, then it comes, and first
    assert [row.event_id for row in await producer.waiting(10)] == ["0", "2"]


async def test_a_cancelled_call_is_accepted_or_not_and_harms_nobody(
    producer: ProducerStore, place: Place, look: Look
) -> None:
    # given calls that wait for a lock, when some are cancelled
    with place.locked() as lock:
        calls = [asyncio.create_task(producer.accept([event(str(number))], ROOM)) for number in range(10)]
        await asyncio.sleep(0.05)
        for call in calls[::2]:
            call.cancel()
        late = asyncio.create_task(producer.accept([event("late")], ROOM))
        await asyncio.sleep(0)
        lock.release()
        results = await asyncio.gather(*calls, return_exceptions=True)

    # then the others are accepted, and so is who comes later
    assert results[1::2] == [[ACCEPTED]] * 5
    assert await late == [ACCEPTED]
    kept = {key for (key,) in look("SELECT id FROM pipeline_event")}
    assert {"1", "3", "5", "7", "9", "late"} <= kept
    assert look("SELECT count(*) FROM pipeline_outgoing") == [(len(kept),)]


async def test_closing_waits_for_calls_under_way(producer_url: str, look: Look) -> None:
    store = await ProducerStore.open(producer_url)
    call = asyncio.create_task(store.accept([event("a")], ROOM))
    await asyncio.sleep(0)

    await store.close()

    assert await call == [ACCEPTED]
    assert look("SELECT id FROM pipeline_event") == [("a",)]


async def test_a_locked_database_is_told_to_every_caller(place: Place) -> None:
    # given a database that somebody else keeps locked for longer than this store waits
    store = await ProducerStore.open(place.impatient.replace("{subscription}", "payments"))
    with place.locked():
        calls = [store.accept([event(str(number))], ROOM) for number in range(5)]
        results = await asyncio.gather(*calls, return_exceptions=True)

    # then each hears that it does not answer, and may come again
    assert [type(result) for result in results] == [StoreUnavailable] * 5
    assert await store.accept([event("0")], ROOM) == [ACCEPTED]
    await store.close()


async def test_postgresql_ends_in_the_middle_and_every_event_is_one(fragile_place: PostgresDatabase) -> None:
    # given calls that come one after the other, each again until it is answered
    store = await ProducerStore.open(fragile_place.url)
    calls = [[event(f"{number}-{part}") for part in range(20)] for number in range(300)]
    failed = 0

    async def accept_all() -> None:
        nonlocal failed
        for call in calls:
            while True:
                try:
                    assert set(await store.accept(call, ROOM)) <= {ACCEPTED, REPEATED}
                    break
                except StoreUnavailable:
                    failed += 1
                    await asyncio.sleep(0.05)

    # when the server ends at once, and comes back
    accepting = asyncio.create_task(accept_all())
    server = fragile_place.databases.server

    async def in_the_middle() -> bool:
        return len(await store.waiting(10_000)) >= 100

    async def noticed() -> bool:
        return failed > 0 or accepting.done()

    await until(in_the_middle, "the first calls are answered")
    await asyncio.to_thread(server.crash)
    await until(noticed, "a call fails")
    await asyncio.to_thread(server.start)
    await accepting

    # then every event waits once, in the order of the calls
    assert failed
    assert [row.event_id for row in await store.waiting(10_000)] == [each.id for call in calls for each in call]
    await store.close()
