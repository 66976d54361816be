"""FastStream. In: `BENCH_AMQP_URL`. Out: messages published with confirms; a worker that counts them."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import uvloop
from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

from benchmarks.peers.publishing import from_tasks
from benchmarks.protocol import Tally

broker = RabbitBroker(
    os.environ["BENCH_AMQP_URL"],
    default_channel=Channel(prefetch_count=1000, publisher_confirms=True),
    logger=None,
    log_level=logging.ERROR,
    apply_types=False,  # the handler takes what was decoded: no validation, which ours does
)
queue = RabbitQueue("bench", queue_type=QueueType.QUORUM, durable=True)
tally = Tally()


async def handle(placed: dict[str, Any]) -> None:
    """Nothing, counted."""
    tally.add()


async def publish_all() -> None:
    """Publish what the argument says."""
    async with broker:
        await broker.declare_queue(queue)

        async def publish(placed: dict[str, Any]) -> None:
            await broker.publish(placed, queue, persist=True)

        await from_tasks(publish)


async def work() -> None:
    """Consume for ever."""
    broker.subscriber(queue, ack_policy=AckPolicy.NACK_ON_ERROR)(handle)
    app = FastStream(broker, logger=None)

    async def say() -> None:
        print("bench: consuming", file=sys.stderr, flush=True)

    app.after_startup(say)
    await app.run(log_level=logging.ERROR)


if __name__ == "__main__":
    uvloop.run(work() if sys.argv[-1] == "worker" else publish_all())
