"""What a committed batch leaves in the database, and what it does not."""

from __future__ import annotations

import re

import pytest

from pipeline.store import CommitReport, Counts, Effects, Outgoing, Store
from tests.store.conftest import Look, effects
from tests.store.models import Payment

INVOICE = Outgoing("events", "invoice.created", "m1", b"{}", b"opaque")


async def test_a_batch_leaves_rows_inbox_result_and_follow_ups(store: Store, look: Look) -> None:
    # given two events: one with a row and a follow-up event, one with a generic result
    batch = [
        Effects("a", "order.created", [Payment(order_id=1, customer="ann", amount=2.5)], outgoing=[INVOICE]),
        Effects("b", "order.paid", result=b'{"paid": true}'),
    ]

    # when the batch is committed
    report = await store.commit(batch)

    # then all of it is in the file, marked with subscription, type and time
    assert report == CommitReport(["a", "b"], set(), {})
    assert look("SELECT * FROM payment") == [(1, "ann", 2.5, None)]
    assert look("SELECT subscription, event_id, event_type FROM pipeline_inbox ORDER BY event_id") == [
        ("payments", "a", "order.created"),
        ("payments", "b", "order.paid"),
    ]
    assert look("SELECT subscription, event_id, event_type, value FROM pipeline_result") == [
        ("payments", "b", "order.paid", '{"paid": true}')
    ]
    (at,) = look("SELECT processed_at FROM pipeline_inbox WHERE event_id = 'a'")[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", at)
    assert await store.counts() == Counts(inbox=2, results=1, outbox=1)


async def test_an_event_that_was_committed_before_changes_nothing(store: Store, look: Look) -> None:
    # given an event that is processed
    await store.commit([effects(Payment(order_id=1, customer="first"), event_id="a")])

    # when it comes again, among others, with other effects
    report = await store.commit(
        [
            effects(Payment(order_id=2, customer="new"), event_id="b"),
            effects(Payment(order_id=3, customer="again"), event_id="a", result=b"1", outgoing=[INVOICE]),
        ]
    )

    # then only the other one is written
    assert report == CommitReport(["b"], {"a"}, {})
    assert look("SELECT order_id, customer FROM payment") == [(1, "first"), (2, "new")]
    assert await store.counts() == Counts(2, 0, 0)


async def test_of_two_entries_with_one_id_the_first_counts(store: Store, look: Look) -> None:
    # given an event that is twice in one batch
    batch = [effects(Payment(order_id=number, customer="x"), event_id="twin") for number in (1, 2)]

    # when the batch is committed
    report = await store.commit(batch)

    # then the first entry's row is there, the second is reported as a duplicate
    assert report == CommitReport(["twin"], {"twin"}, {})
    assert look("SELECT order_id FROM payment") == [(1,)]


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 1000])
async def test_batches_of_any_size_are_written_in_order(store: Store, look: Look, size: int) -> None:
    # given a batch
    batch = [effects(Payment(order_id=n, customer=f"c{n}"), event_id=f"{n:04}", result=b"1") for n in range(size)]

    # when it is committed
    report = await store.commit(batch)

    # then every event of it is there
    assert report.processed == [f"{n:04}" for n in range(size)]
    assert look("SELECT order_id, customer FROM payment") == [(n, f"c{n}") for n in range(size)]
    assert await store.counts() == Counts(size, size, 0)


async def test_an_empty_batch_and_an_event_without_effects(store: Store) -> None:
    assert await store.commit([]) == CommitReport([], set(), {})
    assert await store.commit([effects(event_id="a")]) == CommitReport(["a"], set(), {})
    assert await store.counts() == Counts(1, 0, 0)


async def test_seen_knows_what_is_committed(store: Store) -> None:
    # given some processed events
    await store.commit([effects(event_id=f"e{n}") for n in range(0, 1000, 2)])

    # then seen tells them from the others, by any number of ids, and odd ones are just not seen
    assert await store.seen([f"e{n}" for n in range(10)]) == {"e0", "e2", "e4", "e6", "e8"}
    assert len(await store.seen([f"e{n}" for n in range(1000)])) == 500
    assert await store.seen([]) == set()
    assert await store.seen(["e0", "e0\0", "e2\ud800", "é", 'quo"te']) == {"e0"}


async def test_ids_and_results_keep_every_character(store: Store, look: Look) -> None:
    # given ids that JSON, SQL or a terminal could stumble over
    ids = ["é", "'; --", 'quo"te', "back\\slash", "new\nline", "🦊", " ", "%s ?"]

    # when events with them are committed
    await store.commit([effects(event_id=name, result='"🦊 \\u0000"'.encode()) for name in ids])

    # then they are seen as they are
    assert await store.seen(ids) == set(ids)
    assert {name for (name,) in look("SELECT event_id FROM pipeline_inbox")} == set(ids)
    assert {value for (value,) in look("SELECT value FROM pipeline_result")} == {'"🦊 \\u0000"'}


async def test_subscriptions_may_share_a_database(url: str, store: Store) -> None:
    # given another subscription on the same file
    shared = url.replace("{subscription}", "payments")
    inventory = await Store.open(shared, "inventory")
    try:
        # when both process the same event
        await store.commit([effects(event_id="a", result=b"1", outgoing=[INVOICE])])
        report = await inventory.commit([effects(event_id="a", result=b"2", outgoing=[INVOICE])])

        # then each has it once, and sees only its own
        assert report.processed == ["a"]
        assert await store.counts() == await inventory.counts() == Counts(1, 1, 1)
        mine = await inventory.outgoing(10)
        await store.forget_outgoing([out.key for out in mine])
        assert await inventory.outgoing(10) == mine == [INVOICE]
    finally:
        await inventory.close()


async def test_an_event_made_fresh_again_replaces_its_result(store: Store, look: Look) -> None:
    # given a processed event whose inbox row somebody deletes, to have it processed again
    await store.commit([effects(event_id="a", result=b"1")])
    look("DELETE FROM pipeline_inbox")

    # when it is processed again
    report = await store.commit([effects(event_id="a", result=b"2")])

    # then its result is the new one
    assert report.processed == ["a"]
    assert look("SELECT value FROM pipeline_result") == [("2",)]


async def test_follow_ups_leave_oldest_first_and_once(store: Store) -> None:
    # given follow-up events of two batches
    for batch in (range(3), range(3, 5)):
        await store.commit([effects(outgoing=[outgoing(n)]) for n in batch])

    # when the relay takes some and forgets them, twice
    first = await store.outgoing(2)
    for _ in range(2):
        await store.forget_outgoing([out.key for out in first])
    await store.forget_outgoing([])

    # then the others are left, in order, as they were given
    assert first == [outgoing(0), outgoing(1)]
    assert await store.outgoing(100) == [outgoing(2), outgoing(3), outgoing(4)]
    assert await store.counts() == Counts(5, 0, 3)


async def test_a_relay_may_ask_for_old_follow_ups_only(store: Store) -> None:
    # given one follow-up event made long ago and one made just now
    fresh = Outgoing("x", "k", "m", b"", b"")
    await store.commit([effects(outgoing=[outgoing(1), fresh])])

    # then only the old one is older than a minute
    assert await store.outgoing(10, older_than=60.0) == [outgoing(1)]
    assert await store.outgoing(10) == [outgoing(1), fresh]


def outgoing(number: int) -> Outgoing:
    """One whose key says that it was made in 1970."""
    return Outgoing("x", "k", f"m{number}", b"\x00b", b"\xff", key=f"{number:032x}")
