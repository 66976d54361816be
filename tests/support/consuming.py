"""Consumers under test. In: settings. Out: a consumer that has begun, and what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pipeline.amqp.consumer import Consumer
from pipeline.amqp.session import Session
from pipeline.message import Delivery
from pipeline.settings import Settings
from tests.support.topologies import DEADLINE

QUEUE = "work"


@asynccontextmanager
async def consuming(settings: Settings, prefetch: int = 100, queue: str = QUEUE) -> AsyncIterator[Consumer]:
    """A consumer on a connection of its own."""
    async with Session(settings, "test consumer") as session:
        consumer = Consumer(session, queue, prefetch)
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.close()


async def take(consumer: Consumer, count: int) -> list[Delivery]:
    """So many deliveries, not settled."""
    found: list[Delivery] = []
    async with asyncio.timeout(DEADLINE):
        while len(found) < count:
            found += await consumer.arrived()
    assert len(found) == count
    return found


async def settle_all(consumer: Consumer, bodies: set[bytes]) -> list[Delivery]:
    """Settle whatever comes until each of `bodies` was seen; all that came."""
    found: list[Delivery] = []
    async with asyncio.timeout(DEADLINE):
        while {each.body for each in found} != bodies:
            batch = await consumer.arrived()
            consumer.settle(batch)
            found += batch
    return found


def numbered(count: int) -> list[bytes]:
    """So many bodies, all different."""
    return [b"%d" % number for number in range(count)]
