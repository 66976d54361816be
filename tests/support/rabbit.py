"""RabbitMQ as a test sees it: declare, put, count, take. In: a virtual host. Out: what really lies in its queues.

Over aio-pika, so that the data path is not looked at with its own eyes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from pipeline.settings import Settings
from tests.support.broker import TestVhost
from tests.support.topologies import settings_of, until

QUORUM: Mapping[str, Any] = {"x-queue-type": "quorum"}


def settings_for(vhost: TestVhost, **changes: Any) -> Settings:
    """Settings for this virtual host, with `changes` (`amqp_url=proxy.url`, `heartbeat=1`) applied."""
    return replace(settings_of(vhost), **changes)


class Rabbit:
    """The virtual host through a connection of the test's own."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel

    async def queue(self, name: str, bind: Iterable[tuple[str, str]] = (), **arguments: Any) -> None:
        """Declare a durable quorum queue, and bind it to (exchange, key) pairs; `_` in arguments stands for `-`."""
        more = {key.replace("_", "-"): value for key, value in arguments.items()}
        declared = await self.channel.declare_queue(name, durable=True, arguments={**QUORUM, **more})
        for exchange, key in bind:
            await self.channel.declare_exchange(exchange, "topic", durable=True)
            await declared.bind(exchange, key)

    async def delete(self, queue: str) -> None:
        """Delete a queue with all that is in it."""
        await self.channel.queue_delete(queue)

    async def put(self, queue: str, *bodies: bytes) -> None:
        """Lay messages into a queue, confirmed, in order."""
        exchange = self.channel.default_exchange
        messages = [aio_pika.Message(body, delivery_mode=2) for body in bodies]
        await asyncio.gather(*[exchange.publish(each, queue) for each in messages])

    async def count(self, queue: str) -> int:
        """Messages ready in a queue: those in a consumer's hands are not among them."""
        found = await self.channel.declare_queue(queue, passive=True)
        return found.declaration_result.message_count or 0

    async def until_count(self, queue: str, count: int) -> None:
        """Wait until a queue has so many messages ready."""

        async def reached() -> bool:
            return await self.count(queue) == count

        await until(reached, f"{count} messages ready in {queue}")

    async def take(self, queue: str) -> list[AbstractIncomingMessage]:
        """Everything ready in a queue, in its order, removed."""
        source = await self.channel.get_queue(queue, ensure=False)
        found = []
        while (each := await source.get(no_ack=True, fail=False)) is not None:
            found.append(each)
        return found


@asynccontextmanager
async def rabbit(vhost: TestVhost) -> AsyncIterator[Rabbit]:
    """A look at the virtual host, for the block."""
    connection = await aio_pika.connect(vhost.amqp_url)
    try:
        yield Rabbit(await connection.channel())
    finally:
        await connection.close()
