"""taskiq with taskiq-aio-pika. In: `BENCH_AMQP_URL`. Out: tasks published with confirms; a worker that counts them."""

from __future__ import annotations

import os
from typing import Any

import uvloop
from taskiq_aio_pika import AioPikaBroker
from taskiq_aio_pika.queue import Queue, QueueType

from benchmarks.peers.publishing import from_tasks
from benchmarks.protocol import Tally

broker = AioPikaBroker(os.environ["BENCH_AMQP_URL"], qos=1000).with_queue(Queue(name="bench", type=QueueType.QUORUM))
tally = Tally()


async def handle(placed: dict[str, Any]) -> None:
    """Nothing, counted."""
    tally.add()


task = broker.task(task_name="order.placed")(handle)


async def publish_all() -> None:
    """Publish what the argument says."""
    await broker.startup()
    await from_tasks(task.kiq)
    await broker.shutdown()


if __name__ == "__main__":
    uvloop.run(publish_all())
