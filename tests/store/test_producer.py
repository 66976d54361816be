"""The producer's store: what is accepted is kept, goes out in order, once, and is known afterwards."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from pipeline.errors import OutboxFull, RowRejected
from pipeline.store.producer import Acceptance, ApiKey, NewEvent, ProducerStore
from tests.store.conftest import Look
from tests.store.events import TIME, event, numbered
from tests.store.places import Place

ROOM = 1_000_000
ACCEPTED, REPEATED, CONFLICT = Acceptance.ACCEPTED, Acceptance.REPEATED, Acceptance.CONFLICT


async def ids(producer: ProducerStore, limit: int = 10_000) -> list[str]:
    return [row.event_id for row in await producer.waiting(limit)]


async def test_an_accepted_event_waits_and_is_known(producer: ProducerStore) -> None:
    # given an event with all it can have
    given = replace(event("a", b'{"name": "\xc3\xa9"}', body=b"\0packed"), subject="order/1")

    # when it is accepted
    before = datetime.now(UTC)
    assert await producer.accept([given], ROOM) == [ACCEPTED]

    # then its message waits as it was given
    (row,) = await producer.waiting(10)
    assert (row.event_id, row.message) == ("a", given.message)

    # and all of it is known
    found = await producer.event("a")
    assert found is not None
    assert (found.id, found.type, found.source, found.subject) == ("a", "order.created", "/test", "order/1")
    assert (found.time, found.payload, found.status, found.published_at) == (TIME, given.payload, "accepted", None)
    assert before - timedelta(milliseconds=1) <= found.accepted_at <= datetime.now(UTC)


async def test_what_is_published_no_longer_waits(producer: ProducerStore) -> None:
    # given three events that wait, when the second is published
    await producer.accept(numbered(3), ROOM)
    await producer.mark_published((await producer.waiting(10))[1:2])

    # then the others wait, and it says so
    assert await ids(producer) == ["e000000", "e000002"]
    found = await producer.event("e000001")
    assert found is not None
    assert found.status == "published"
    assert found.published_at is not None
    status = await producer.status()
    assert (status.waiting, status.accepted, status.published) == (2, 3, 1)
    assert status.oldest is not None


async def test_published_a_second_time_changes_nothing(producer: ProducerStore) -> None:
    # given a relay that was held up after another had published its rows and more was accepted
    await producer.accept(numbered(2), ROOM)
    rows = await producer.waiting(10)
    await producer.mark_published(rows)
    first = await producer.event("e000000")
    await producer.accept(numbered(2, prefix="f"), ROOM)

    # when it says that they are published, then what came later still waits
    await producer.mark_published(rows)
    assert await ids(producer) == ["f000000", "f000001"]
    assert await producer.event("e000000") == first


async def test_the_same_event_again_is_one_event(producer: ProducerStore) -> None:
    # given an accepted event, when it comes again, as it was and with other content, alone and in one call
    assert await producer.accept([event("a"), event("a"), event("a", b"{}")], ROOM) == [ACCEPTED, REPEATED, CONFLICT]
    assert await producer.accept([event("a")], ROOM) == [REPEATED]
    assert await producer.accept([event("a", b"{}"), event("b")], ROOM) == [CONFLICT, ACCEPTED]
    assert await producer.accept([event("a", type="order.paid")], ROOM) == [CONFLICT]

    # then it is there once, as it came first
    assert await ids(producer) == ["a", "b"]
    found = await producer.event("a")
    assert found is not None
    assert (found.type, found.payload) == ("order.created", b'{"order_id": 1}')

    # and so it stays once it is published
    await producer.mark_published(await producer.waiting(10))
    assert await producer.accept([event("a"), event("a", b"{}")], ROOM) == [REPEATED, CONFLICT]
    assert await ids(producer) == []


async def test_events_go_out_in_the_order_they_came(producer: ProducerStore) -> None:
    # given events of many calls, one after the other, whose ids don't sort as they came
    given = [f"{number % 7}-{number}" for number in range(500)]
    for first in range(0, 500, 50):
        await producer.accept([event(each) for each in given[first : first + 50]], ROOM)

    # then they wait in that order
    assert await ids(producer) == given
    assert [row.seq for row in await producer.waiting(10_000)] == sorted(
        {row.seq for row in await producer.waiting(10_000)}
    )


async def test_concurrent_calls_share_transactions(producer: ProducerStore, place: Place, look: Look) -> None:
    # given a lock that holds up the first commit, while a hundred calls come
    with place.locked() as lock:
        first = asyncio.create_task(producer.accept([event("first")], ROOM))
        await asyncio.sleep(0.05)  # it is on its way
        others = [asyncio.create_task(producer.accept([each], ROOM)) for each in numbered(100)]
        await asyncio.sleep(0)
        lock.release()
        assert await first == [ACCEPTED]
        assert await asyncio.gather(*others) == [[ACCEPTED]] * 100

    # then the hundred that came meanwhile were one transaction, which notes one moment
    moments = look("SELECT DISTINCT accepted_at FROM pipeline_event WHERE id <> 'first'")
    assert len(moments) == 1
    assert await ids(producer) == ["first", *(each.id for each in numbered(100))]


async def test_one_bad_call_does_not_fail_its_neighbours(producer: ProducerStore) -> None:
    # given concurrent calls, one of them with text that can't be kept
    bad = [event("nul\0"), event("half\ud800"), event("x", b"\xff"), event("x" * 2000)]
    calls = [*([each] for each in bad), [event("good")]]

    # when all are made at once
    results = await asyncio.gather(*(producer.accept(call, ROOM) for call in calls), return_exceptions=True)

    # then each hears what is wrong with it, and the good one is accepted
    assert [type(result) for result in results[:-1]] == [RowRejected] * 4
    assert results[-1] == [ACCEPTED]
    assert await ids(producer) == ["good"]


async def test_ids_that_are_odd_but_possible(producer: ProducerStore) -> None:
    # given ids with quotes, SQL, other scripts and the greatest length
    odd = ["'; DROP TABLE pipeline_event; --", 'a"b\\c', "мир 🐇", "%s $1 ?", " ", "x" * 1024]

    # when they are accepted, found and published, then they are what they were
    assert await producer.accept([event(each) for each in odd], ROOM) == [ACCEPTED] * len(odd)
    assert await producer.accept([event(each) for each in odd], ROOM) == [REPEATED] * len(odd)
    for each in odd:
        found = await producer.event(each)
        assert found is not None
        assert found.id == each
    await producer.mark_published(await producer.waiting(100))
    assert (await producer.status()).published == len(odd)
    assert await producer.event("nul\0") is None


async def test_more_than_the_bound_is_refused_as_a_whole(producer: ProducerStore) -> None:
    # given an outbox with room for two more
    await producer.accept(numbered(8), 10)

    # when three come at once, then nothing of them is accepted
    with pytest.raises(OutboxFull) as caught:
        await producer.accept(numbered(3, prefix="f"), 10)
    assert (caught.value.waiting, caught.value.bound) == (8, 10)
    assert await producer.event("f000000") is None

    # and two are, along with any number of repeated ones
    both = [*numbered(2, prefix="f"), *numbered(8)]
    assert await producer.accept(both, 10) == [*[ACCEPTED] * 2, *[REPEATED] * 8]
    assert await producer.accept(numbered(8), 10) == [REPEATED] * 8

    # and once there is room again, it is noticed
    await producer.mark_published((await producer.waiting(10))[2:])
    await eventually_accepted(producer, numbered(8, prefix="g"), 10)


async def test_a_full_outbox_fails_only_the_calls_that_are_too_much(producer: ProducerStore) -> None:
    # given room for five, when four calls with two each come at once
    calls = [numbered(2, prefix=f"c{number}-") for number in range(4)]
    results = await asyncio.gather(*(producer.accept(call, 5) for call in calls), return_exceptions=True)

    # then two are accepted and two refused, whole
    assert results[:2] == [[ACCEPTED] * 2] * 2
    assert [type(result) for result in results[2:]] == [OutboxFull] * 2
    assert len(await ids(producer)) == 4


async def test_gaps_do_not_count(producer: ProducerStore) -> None:
    # given a first event that waits for ever, a new one, and many that came and went in between
    await producer.accept([event("stuck"), *numbered(500), event("new")], ROOM)
    await producer.mark_published((await producer.waiting(1000))[1:-1])

    # when more come within the bound, then what is gone is not in their way
    await eventually_accepted(producer, numbered(8, prefix="f"), 10)
    with pytest.raises(OutboxFull):
        await producer.accept(numbered(1, prefix="g"), 10)


async def test_reading_passes_over_routes_and_reads_one(producer: ProducerStore) -> None:
    # given events of three types
    kinds = ["order.created", "order.paid", "order.sent"] * 3
    await producer.accept([event(f"{number}", type=kind) for number, kind in enumerate(kinds)], ROOM)

    # when some are left out, then the others come in order
    held = [("events", "order.created"), ("events", "order.sent"), ("elsewhere", "order.paid")]
    assert [row.event_id for row in await producer.waiting(10, without=held)] == ["1", "4", "7"]
    assert [row.event_id for row in await producer.waiting(2, only=("events", "order.sent"))] == ["2", "5"]
    after = (await producer.waiting(10))[3].seq
    assert [row.event_id for row in await producer.waiting(2, after)] == ["4", "5"]


async def test_large_bodies_are_read_a_few_at_a_time(producer: ProducerStore) -> None:
    # given five events of 3 MiB
    await producer.accept([event(str(number), body=bytes(3 * 1024**2)) for number in range(5)], ROOM)

    # when many are asked for, then about 8 MiB come, and one always does
    assert await ids(producer) == ["0", "1", "2"]
    await producer.accept([event("large", body=bytes(9 * 1024**2))], ROOM)
    await producer.mark_published((await producer.waiting(10))[:3])
    await producer.mark_published((await producer.waiting(10))[:2])
    assert await ids(producer) == ["large"]


async def test_old_published_events_are_forgotten_and_no_others(producer: ProducerStore, look: Look) -> None:
    # given 2,500 published events of last year, one that waits since then, and one published now
    await producer.accept([event("waits"), *numbered(2500), event("new")], ROOM)
    await producer.mark_published((await producer.waiting(10_000))[1:])
    look("UPDATE pipeline_event SET accepted_at = '2025-06-01T00:00:00.000Z' WHERE id <> 'new'")
    look("UPDATE pipeline_event SET published_at = '2025-06-02T00:00:00.000Z' WHERE id NOT IN ('new', 'waits')")

    # when what was published before a moment is forgotten, then just that is gone
    assert await producer.forget(datetime(2025, 6, 2, tzinfo=UTC)) == 0
    assert await producer.forget(datetime(2025, 6, 2, 1, tzinfo=timezone(timedelta(hours=1)))) == 0
    assert await producer.forget(datetime(2025, 6, 3, tzinfo=UTC)) == 2500
    assert look("SELECT id FROM pipeline_event ORDER BY id") == [("new",), ("waits",)]
    assert await ids(producer) == ["waits"]


async def test_a_lease_has_one_holder_until_it_ends(producer: ProducerStore, look: Look) -> None:
    # given one who holds it
    assert await producer.lease("relay", "one", 60)
    assert not await producer.lease("relay", "two", 60)
    assert await producer.lease("relay", "one", 60)
    assert await producer.lease("other", "two", 60)
    assert await producer.holder("relay") == "one"

    # when another gives it back, nothing happens; when the holder does, it is free
    await producer.release("relay", "two")
    assert not await producer.lease("relay", "two", 60)
    await producer.release("relay", "one")
    assert await producer.holder("relay") is None
    assert await producer.lease("relay", "two", 60)

    # and when it has run out, it is free as well
    look("UPDATE pipeline_lease SET expires_at = expires_at - 61")
    assert await producer.holder("relay") is None
    assert await producer.lease("relay", "one", 60)


async def test_many_want_the_lease_at_once(producer_url: str, producer: ProducerStore) -> None:
    stores = [producer, *[await ProducerStore.open(producer_url) for _ in range(3)]]

    got = await asyncio.gather(*(store.lease("relay", f"h{n}", 60) for n, store in enumerate(stores * 4)))

    assert sum(got) == 1
    await asyncio.gather(*(store.close() for store in stores[1:]))


async def test_keys_are_kept_and_revoked(producer: ProducerStore) -> None:
    # given two keys
    one = ApiKey("k1", "shop", "hash-1", ("publish:order.*", "read"), TIME)
    two = ApiKey("k2", "audit", "hash-2", (), TIME + timedelta(seconds=1))
    await producer.add_key(two)
    await producer.add_key(one)
    assert await producer.keys() == [one, two]
    assert await producer.key("k1") == one
    with pytest.raises(RowRejected, match="there is a key with the id k1 already"):
        await producer.add_key(replace(one, name="other"))

    # when one is revoked, then it is once and for all
    assert await producer.revoke_key("k1")
    assert not await producer.revoke_key("k1")
    assert not await producer.revoke_key("nobody")
    found = await producer.key("k1")
    assert found is not None
    assert found.revoked_at is not None
    assert await producer.key("k2") == two
    assert await producer.key("k\0") is None


async def eventually_accepted(producer: ProducerStore, events: list[NewEvent], bound: int) -> None:
    """What waits is counted twice a second: until then a full outbox stays full."""
    async with asyncio.timeout(20):
        while True:
            try:
                assert await producer.accept(events, bound) == [ACCEPTED] * len(events)
                return
            except OutboxFull:
                await asyncio.sleep(0.05)
