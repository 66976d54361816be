"""The expanded objects do what they are there for: retries come back, dead letters arrive."""

from __future__ import annotations

import time

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from pipeline.amqp.connection import open_connection
from pipeline.settings import Settings
from tests.support.broker import TestVhost
from tests.support.topologies import applied, settings_of, topology_of, until

SHOP = topology_of("""\
exchanges: {events: {}}
events: {order.created: {}, order.paid: {}}
subscriptions:
  payments: {events: [order.created], retry: {attempts: 2, delays: [300ms]}, delivery_limit: 3}
""")


@pytest.fixture
async def settings(vhost: TestVhost) -> Settings:
    """Settings of a virtual host with the topology applied."""
    settings = settings_of(vhost)
    await applied(settings, SHOP)
    return settings


async def arrived(channel: AbstractChannel, queue: str) -> AbstractIncomingMessage:
    """The next message of `queue`, not yet acked."""
    found = await channel.get_queue(queue)

    async def one() -> AbstractIncomingMessage | None:
        return await found.get(fail=False)

    message = await until(one, f"a message in {queue}")
    assert message is not None
    return message


async def test_an_event_reaches_its_subscription_and_no_other(settings: Settings) -> None:
    async with open_connection(settings, "test") as connection:
        channel = await connection.channel(on_return_raises=True)
        exchange = await channel.get_exchange("events")

        await exchange.publish(aio_pika.Message(b"created"), "order.created")

        assert (await arrived(channel, "payments")).body == b"created"
        with pytest.raises(aio_pika.exceptions.DeliveryError):
            await exchange.publish(aio_pika.Message(b"paid"), "order.paid")


async def test_a_message_in_a_retry_queue_comes_back_after_its_delay(settings: Settings) -> None:
    async with open_connection(settings, "test") as connection:
        channel = await connection.channel()
        start = time.monotonic()

        await channel.default_exchange.publish(aio_pika.Message(b"again"), "payments.retry.300ms")

        message = await arrived(channel, "payments")
        assert message.body == b"again"
        assert time.monotonic() - start >= 0.3
        assert message.headers["x-death"][0]["queue"] == "payments.retry.300ms"  # type: ignore[index, call-overload]


async def test_a_rejected_message_is_dead_lettered(settings: Settings) -> None:
    async with open_connection(settings, "test") as connection:
        channel = await connection.channel()
        await channel.default_exchange.publish(aio_pika.Message(b"bad"), "payments")

        await (await arrived(channel, "payments")).reject(requeue=False)

        assert (await arrived(channel, "payments.dlq")).body == b"bad"


async def test_a_message_delivered_too_often_is_dead_lettered_by_the_policy(settings: Settings) -> None:
    # given a message whose consumers die over it, again and again
    async with open_connection(settings, "test") as connection:
        channel = await connection.channel()
        await channel.default_exchange.publish(aio_pika.Message(b"killer"), "payments")
        for _ in range(4):
            await (await arrived(channel, "payments")).reject(requeue=True)

        # then after the limit the broker takes it out of the way and says why
        message = await arrived(channel, "payments.dlq")
        assert message.body == b"killer"
        assert message.headers["x-death"][0]["reason"] == "delivery_limit"  # type: ignore[index, call-overload]


async def test_a_dead_letter_may_be_looked_at_more_often_than_any_limit(settings: Settings) -> None:
    # given a dead letter
    async with open_connection(settings, "test") as connection:
        channel = await connection.channel()
        await channel.default_exchange.publish(aio_pika.Message(b"dead"), "payments.dlq")

        # when it is looked at more often than the 20 times RabbitMQ 4 allows by default
        for _ in range(25):
            await (await arrived(channel, "payments.dlq")).reject(requeue=True)

        # then it is still there
        assert (await arrived(channel, "payments.dlq")).body == b"dead"
