"""Messages that were in hand of dead workers: one at a time until they are through, then full speed again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika

from pipeline.amqp.consumer import Consumer
from pipeline.amqp.session import Session
from pipeline.message import Delivery
from pipeline.worker.suspects import Suspects
from tests.support.broker import TestVhost
from tests.support.consuming import QUEUE, numbered
from tests.support.rabbit import Rabbit, rabbit, settings_for
from tests.support.topologies import DEADLINE

FULL = 100


@asynccontextmanager
async def queue_there(vhost: TestVhost) -> AsyncIterator[Rabbit]:
    """A look at the virtual host, in which the queue is declared."""
    async with rabbit(vhost) as broker:
        await broker.queue(QUEUE)
        yield broker


async def die_over(vhost: TestVhost, count: int, times: int) -> None:
    """Take so many messages from the queue and die, again and again."""
    for _ in range(times):
        async with holding(vhost, count):
            pass


@asynccontextmanager
async def holding(vhost: TestVhost, count: int) -> AsyncIterator[None]:
    """A worker that has so many messages in hand, and dies at the end of the block."""
    connection = await aio_pika.connect(vhost.amqp_url)
    queue = await (await connection.channel()).get_queue(QUEUE)
    for _ in range(count):
        assert await queue.get() is not None
    try:
        yield
    finally:
        await connection.close()


@asynccontextmanager
async def at_work(vhost: TestVhost) -> AsyncIterator[tuple[Suspects, Consumer]]:
    """A worker's hands on the queue, which is there already; they hold `FULL` messages at most."""
    async with Session(settings_for(vhost), "test worker") as session:
        consumer = Consumer(session, QUEUE, FULL)
        suspects = Suspects(consumer, FULL)
        await suspects.start()
        try:
            yield suspects, consumer
        finally:
            await consumer.close()


async def next_batch(suspects: Suspects) -> list[Delivery]:
    """What arrives next."""
    async with asyncio.timeout(DEADLINE):
        return await suspects.arrived()


async def speed_up(broker: Rabbit, suspects: Suspects, consumer: Consumer) -> None:
    """Have the worker at full speed: it takes a message that is new."""
    await broker.put(QUEUE, b"new")
    consumer.settle(await next_batch(suspects))
    assert not suspects.careful
    assert consumer.prefetch == FULL


async def test_a_new_worker_is_careful_until_a_new_message_comes(vhost: TestVhost) -> None:
    # Given three messages over which a worker died, and new ones behind them
    async with queue_there(vhost) as broker:
        await broker.put(QUEUE, *numbered(3))
        await die_over(vhost, 3, times=1)
        await broker.put(QUEUE, *[b"new"] * 50)

        # When a worker starts, then it has one in hand at a time until it meets a new one
        async with at_work(vhost) as (suspects, consumer):
            seen = []
            while suspects.careful:
                batch = await next_batch(suspects)
                assert len(batch) == 1
                seen.append(batch[0].body)
                consumer.settle(batch)
            assert seen == [b"0", b"1", b"2", b"new"]

            # And from then on as many as it may
            await broker.until_count(QUEUE, 0)


async def test_a_worker_at_full_speed_turns_careful_for_suspects(vhost: TestVhost) -> None:
    # Given a worker at full speed
    async with queue_there(vhost) as broker, at_work(vhost) as (suspects, consumer):
        await speed_up(broker, suspects, consumer)
        await consumer.pause()
        await broker.put(QUEUE, *numbered(3))
        await die_over(vhost, 3, times=2)
        await broker.put(QUEUE, b"neighbour")

        # When messages come that were in hand of dead workers twice, beside one that was not
        await consumer.resume(FULL)
        async with asyncio.timeout(DEADLINE):
            while consumer.in_hand < 4:  # noqa: ASYNC110 - the broker delivers
                await asyncio.sleep(0.01)
        others = await next_batch(suspects)

        # Then it finishes the others first, and takes these one at a time
        assert [each.body for each in others] == [b"neighbour"]
        consumer.settle(others)
        for body in numbered(3):
            batch = await next_batch(suspects)
            assert [each.body for each in batch] == [body]
            assert suspects.careful
            assert consumer.in_hand == 1
            consumer.settle(batch)

        # And is at full speed again with the next that is new
        await speed_up(broker, suspects, consumer)


async def test_one_lost_connection_makes_nobody_suspect(vhost: TestVhost) -> None:
    async with queue_there(vhost) as broker, at_work(vhost) as (suspects, consumer):
        await speed_up(broker, suspects, consumer)
        await consumer.pause()
        await broker.put(QUEUE, *numbered(20))
        await die_over(vhost, 20, times=1)
        await consumer.resume(FULL)
        found: list[bytes] = []
        while len(found) < 20:
            found += [each.body for each in await next_batch(suspects)]
        assert sorted(found, key=int) == numbered(20)  # the broker gives back in an order of its own
        assert not suspects.careful
