"""A consumer on a real broker: batches, acks, what is in hand, pausing and stopping."""

from __future__ import annotations

import asyncio

import pamqp.frame
import pytest
from pamqp import commands

from pipeline.amqp.lane import Lane
from pipeline.errors import ObjectMissing
from tests.support.broker import TestVhost
from tests.support.consuming import QUEUE, consuming, numbered, take
from tests.support.publishing import BOUND, orders, publisher
from tests.support.rabbit import rabbit, settings_for
from tests.support.topologies import DEADLINE, until


async def test_what_is_published_arrives_as_it_was_and_in_order(vhost: TestVhost) -> None:
    settings = settings_for(vhost)
    sent = orders(300)
    async with rabbit(vhost) as seen, publisher(settings) as events:
        await seen.queue(QUEUE, bind=BOUND)
        await events.publish_many(sent)

        async with consuming(settings, prefetch=1000) as consumer:
            found = await take(consumer, 300)

        assert [events.codec.decode(each) for each in found] == sent
    assert [each.tag for each in found] == list(range(1, 301))
    facts = {(each.exchange, each.routing_key, each.redelivered, each.delivery_count, each.epoch) for each in found}
    assert facts == {("events", "order.created", False, 0, 1)}


async def test_what_arrives_while_a_batch_is_in_hand_is_the_next_batch(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen:
        await seen.queue(QUEUE)
        async with consuming(settings_for(vhost)) as consumer:
            await seen.put(QUEUE, b"first")
            first = await take(consumer, 1)
            await seen.put(QUEUE, *numbered(50))

            async def all_here() -> bool:
                return consumer.in_hand == 51

            await until(all_here, "the next messages")
            assert [each.body for each in await consumer.arrived()] == numbered(50)
            consumer.settle(first)
            assert consumer.in_hand == 50


async def test_no_more_than_the_prefetch_is_in_hand(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen:
        await seen.queue(QUEUE)
        await seen.put(QUEUE, *numbered(50))
        async with consuming(settings_for(vhost), prefetch=10) as consumer:
            first = await take(consumer, 10)
            await seen.until_count(QUEUE, 40)

            consumer.settle(first[3:5])

            assert [each.body for each in await take(consumer, 2)] == [b"10", b"11"]
            await seen.until_count(QUEUE, 38)
            assert consumer.in_hand == 10


async def test_what_is_not_settled_comes_back_and_what_is_does_not(vhost: TestVhost) -> None:
    settings = settings_for(vhost)
    async with rabbit(vhost) as seen:
        await seen.queue(QUEUE)
        await seen.put(QUEUE, *numbered(20))
        async with consuming(settings) as consumer:
            found = await take(consumer, 20)
            # in any order, some twice
            for each in (found[7:9], found[2:4], found[3:8], found[12:13]):
                consumer.settle(each)

        await seen.until_count(QUEUE, 20 - 8)
        async with consuming(settings) as consumer:
            again = await take(consumer, 12)
        assert [int(each.body) for each in again] == [0, 1, 9, 10, 11, 13, 14, 15, 16, 17, 18, 19]
        assert all(each.redelivered for each in again)


async def test_a_settled_prefix_is_one_ack_on_the_wire(vhost: TestVhost, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    write = Lane.write

    def noting(lane: Lane, data: bytes) -> None:
        written.append(data)
        write(lane, data)

    monkeypatch.setattr(Lane, "write", noting)
    async with rabbit(vhost) as seen:
        await seen.queue(QUEUE)
        await seen.put(QUEUE, *numbered(100))
        async with consuming(settings_for(vhost)) as consumer:
            found = await take(consumer, 100)
            consumer.settle(found[:60])
            consumer.settle(found[70:])
            consumer.settle(reversed(found[60:70]))
        await seen.until_count(QUEUE, 0)

    first, ahead, rest = [acks(each) for each in written]
    assert first == [(60, True)]
    assert ahead == [(tag, False) for tag in range(71, 101)]
    assert rest == [(70, True)]


def acks(raw: bytes) -> list[tuple[int, bool]]:
    """The acks in what was written, as pamqp reads them."""
    found = []
    while raw:
        size, _, ack = pamqp.frame.unmarshal(raw)
        assert isinstance(ack, commands.Basic.Ack)
        found.append((ack.delivery_tag, ack.multiple))
        raw = raw[size:]
    return found


async def test_what_is_given_back_is_handed_out_again(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen:
        await seen.queue(QUEUE)
        await seen.put(QUEUE, *numbered(3))
        async with consuming(settings_for(vhost)) as consumer:
            found = await take(consumer, 3)

            consumer.requeue(found[:2])
            again = await take(consumer, 2)
            consumer.settle([*again, *found])

            assert {(each.body, each.redelivered) for each in again} == {(b"0", True), (b"1", True)}
            assert consumer.in_hand == 0
            assert consumer.epoch == 1
        await seen.until_count(QUEUE, 0)


async def test_pausing_and_resuming_with_another_prefetch_keeps_what_is_in_hand(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen:
        await seen.queue(QUEUE)
        await seen.put(QUEUE, *numbered(10))
        async with consuming(settings_for(vhost), prefetch=10) as consumer:
            found = await take(consumer, 10)
            # when it pauses, nothing new comes
            assert await consumer.pause() == []
            await seen.put(QUEUE, *numbered(30)[10:])
            await seen.until_count(QUEUE, 20)
            # and when it goes on, as many as were asked for
            await consumer.resume(3)
            more = await take(consumer, 3)
            await seen.until_count(QUEUE, 17)
            # then all that was in hand before can be settled
            consumer.settle(found)
            consumer.settle(more)
            last = await take(consumer, 3)
            assert [each.body for each in found + more + last] == numbered(16)
            assert consumer.epoch == 1
        await seen.until_count(QUEUE, 17)


async def test_pausing_hands_over_what_had_arrived(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen:
        await seen.queue(QUEUE)
        await seen.put(QUEUE, *numbered(5))
        async with consuming(settings_for(vhost)) as consumer:

            async def all_here() -> bool:
                return consumer.in_hand == 5

            await until(all_here, "five messages, not taken")
            found = await consumer.pause()

            assert [each.body for each in found] == numbered(5)
            assert await consumer.pause() == []
            consumer.settle(found)
            assert consumer.in_hand == 0


async def test_a_stopped_consumer_gives_what_is_here_and_then_nothing(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen:
        await seen.queue(QUEUE)
        async with consuming(settings_for(vhost)) as consumer:
            waiting = asyncio.create_task(consumer.arrived())
            await seen.put(QUEUE, b"last")
            (last,) = await waiting

            ended = asyncio.create_task(consumer.arrived())
            await consumer.stop()
            await seen.put(QUEUE, b"after the end")

            async with asyncio.timeout(DEADLINE):
                assert await ended == []
            consumer.settle([last])
            await consumer.resume(10)
            assert await consumer.arrived() == []
        await seen.until_count(QUEUE, 1)


async def test_a_queue_that_is_not_there_is_named_with_the_way_out(vhost: TestVhost) -> None:
    with pytest.raises(ObjectMissing, match=r"no queue 'work'.*pipeline topology apply"):
        async with consuming(settings_for(vhost)):
            pass
