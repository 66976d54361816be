"""Consumers that lose something: each comes back, drops its dead tags, and no message is lost or acked unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from pamqp import commands, frame

from pipeline.amqp import consumer as consumer_module
from pipeline.amqp import lane as lane_module
from pipeline.amqp.consumer import Consumer
from pipeline.amqp.frames import ack_frame
from pipeline.amqp.session import Session
from tests.support.broker import TestVhost, manage
from tests.support.consuming import QUEUE, consuming, numbered, settle_all, take
from tests.support.proxy import proxy_to
from tests.support.rabbit import rabbit, settings_for
from tests.support.topologies import DEADLINE, until


def empty_handed(consumer: Consumer) -> Callable[[], Awaitable[bool]]:
    """Whether the consumer holds nothing of the broker's, which is so between two lives."""

    async def found() -> bool:
        return consumer.in_hand == 0

    return found


async def test_cut_off_it_comes_back_and_drops_dead_tags(vhost: TestVhost) -> None:
    bodies = numbered(200)
    async with rabbit(vhost) as seen, proxy_to(vhost.amqp_url) as proxy:
        await seen.queue(QUEUE)
        await seen.put(QUEUE, *bodies)
        async with consuming(settings_for(vhost, amqp_url=proxy.url)) as consumer:
            old = await take(consumer, 100)
            consumer.settle(old[:10])
            await seen.until_count(QUEUE, 90)
            # when the connection breaks with deliveries in hand
            proxy.cut()
            await until(empty_handed(consumer), "a consumer that knows its life to be over")
            again = await take(consumer, 100)
            # then settling what is left of the old life touches nothing of the new one, though the tags are the same
            consumer.settle(old)
            consumer.requeue(old)
            assert consumer.in_hand == 100
            consumer.settle(again)
            # and what was not settled before came again, once
            found = again + await settle_all(consumer, set(bodies[10:]) - {each.body for each in again})
            assert len(found) == 190
            assert {each.epoch for each in found} == {2}
            assert {each.body for each in found if each.redelivered} == set(bodies[10:110])
        await seen.until_count(QUEUE, 0)


async def test_what_had_arrived_before_the_cut_and_was_not_taken_is_not_handed_out(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen, proxy_to(vhost.amqp_url) as proxy:
        await seen.queue(QUEUE)
        await seen.put(QUEUE, *numbered(5))
        async with consuming(settings_for(vhost, amqp_url=proxy.url)) as consumer:

            async def all_here() -> bool:
                return consumer.in_hand == 5

            await until(all_here, "five messages, not taken")
            proxy.cut()
            await until(empty_handed(consumer), "a consumer that knows its life to be over")

            assert {each.epoch for each in await take(consumer, 5)} == {2}


async def test_a_queue_deleted_under_it_is_consumed_again_once_it_is_there(
    vhost: TestVhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "STALL_CHECK", 3600)  # the broker says so: no need to look
    async with rabbit(vhost) as seen:
        await seen.queue(QUEUE)
        await seen.put(QUEUE, b"old")
        async with consuming(settings_for(vhost)) as consumer:
            old = await take(consumer, 1)
            waiting = asyncio.create_task(consumer.arrived())
            # when the queue goes, with a delivery in hand, and comes back. Not at once: a queue that is declared again
            # before RabbitMQ 3.10 has told of its end hands its messages to the old consumer, and they never arrive.
            await seen.delete(QUEUE)
            await until(empty_handed(consumer), "a consumer that knows its life to be over")
            consumer.settle(old)
            await seen.queue(QUEUE)
            await seen.put(QUEUE, b"new")
            # then it is consumed as before
            async with asyncio.timeout(DEADLINE):
                assert [each.body for each in await waiting] == [b"new"]


async def test_messages_that_the_broker_counts_as_ours_and_that_never_came_are_got_back(
    vhost: TestVhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "STALL_CHECK", 0.3)
    monkeypatch.setattr(consumer_module, "LOST_CHECK", 0.5)
    async with rabbit(vhost) as seen:
        await seen.queue(QUEUE)
        async with consuming(settings_for(vhost)) as consumer:
            waiting = asyncio.create_task(consumer.arrived())
            # when the queue goes and is there again at once: RabbitMQ hands its messages to a consumer that it has lost
            await seen.delete(QUEUE)
            await seen.queue(QUEUE)
            await seen.put(QUEUE, b"new")
            # then they arrive all the same
            async with asyncio.timeout(3 * DEADLINE):
                assert [each.body for each in await waiting] == [b"new"]


async def test_a_channel_closed_by_the_broker_is_opened_again(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen, proxy_to(vhost.amqp_url) as proxy:
        await seen.queue(QUEUE)
        await seen.put(QUEUE, *numbered(5))
        async with Session(settings_for(vhost, amqp_url=proxy.url), "test") as session:
            consumer = Consumer(session, QUEUE, 10)
            await consumer.start()
            found = await take(consumer, 5)
            # when an ack for a tag that never was closes the only channel of the connection
            (await session.lane()).write(ack_frame(1, 999))
            again = await settle_all(consumer, set(numbered(5)))
            # then everything comes again, on the same connection
            assert {each.epoch for each in again} == {2}
            consumer.settle(found)
            assert proxy.accepted == 1
            await consumer.close()
        await seen.until_count(QUEUE, 0)


@pytest.fixture
def alert(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is looked into soon."""
    monkeypatch.setattr(consumer_module, "STALL_CHECK", 0.3)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, alert: None) -> None:
    """And answers are not waited for long."""
    monkeypatch.setattr(lane_module, "ANSWER_DEADLINE", 0.5)


async def test_a_black_hole_is_noticed_in_silence(vhost: TestVhost, impatient: None) -> None:
    async with rabbit(vhost) as seen, proxy_to(vhost.amqp_url) as proxy:
        await seen.queue(QUEUE)
        settings = settings_for(vhost, amqp_url=proxy.url, connect_timeout=0.5, heartbeat=60)
        async with consuming(settings) as consumer:
            waiting = asyncio.create_task(consumer.arrived())
            # when the network swallows everything, without closing anything
            proxy.stall()
            await seen.put(QUEUE, b"behind the wall")

            async def tried_again() -> bool:
                return proxy.accepted >= 2

            await until(tried_again, "a new connection")
            proxy.resume()
            # then a new connection is made long before a heartbeat is missed
            async with asyncio.timeout(DEADLINE):
                assert [each.body for each in await waiting] == [b"behind the wall"]
            assert consumer.epoch > 1


async def test_a_consumer_that_the_broker_no_longer_knows_is_noticed(vhost: TestVhost, alert: None) -> None:
    async with rabbit(vhost) as seen, Session(settings_for(vhost), "test") as session:
        await seen.queue(QUEUE)
        consumer = Consumer(session, QUEUE, 10)
        await consumer.start()
        waiting = asyncio.create_task(consumer.arrived())

        async def known() -> list[dict[str, str]]:
            found = manage(vhost.management_url, "GET", f"/api/consumers/{vhost.name}")
            assert isinstance(found, list)
            return found

        # given a broker that dropped the consumer without a word
        (registered,) = await until(known, "the consumer in the broker's register")
        gone = commands.Basic.Cancel(registered["consumer_tag"], nowait=True)
        (await session.lane()).write(frame.marshal(gone, 1))
        # when a message comes
        await seen.put(QUEUE, b"for nobody")
        # then the silence is looked into and the consumer restored
        async with asyncio.timeout(DEADLINE):
            assert [each.body for each in await waiting] == [b"for nobody"]
        assert consumer.epoch == 2
        await consumer.close()


async def test_silence_is_fine_while_nothing_is_there_or_the_hands_are_full(vhost: TestVhost, alert: None) -> None:
    async with rabbit(vhost) as seen:
        await seen.queue(QUEUE)
        async with consuming(settings_for(vhost), prefetch=1) as consumer:
            waiting = asyncio.create_task(consumer.arrived())
            assert not (await asyncio.wait([waiting], timeout=1))[0]  # three looks
            await seen.put(QUEUE, *numbered(2))
            found = await waiting

            waiting = asyncio.create_task(consumer.arrived())
            assert not (await asyncio.wait([waiting], timeout=1))[0]
            consumer.settle(found)

            async with asyncio.timeout(DEADLINE):
                assert [each.body for each in await waiting] == [b"1"]
            assert consumer.epoch == 1


async def test_stopping_does_not_wait_for_a_broker_that_is_gone(vhost: TestVhost, impatient: None) -> None:
    async with rabbit(vhost) as seen, proxy_to(vhost.amqp_url) as proxy:
        await seen.queue(QUEUE)
        settings = settings_for(vhost, amqp_url=proxy.url, connect_timeout=0.5)
        async with consuming(settings) as consumer:
            proxy.refusing = True
            proxy.cut()
            waiting = asyncio.create_task(consumer.arrived())
            await asyncio.wait([waiting], timeout=0.3)

            await consumer.stop()

            async with asyncio.timeout(DEADLINE):
                assert await waiting == []
