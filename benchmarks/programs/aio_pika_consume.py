"""Consumes with aio-pika. In: a queue, how many, how many an ack. Out: when it began and ended.

`ack_every` 1 is what its documentation shows; more acks that many at once, with `multiple`.
"""

from __future__ import annotations

import asyncio

import aio_pika
import uvloop
from aio_pika.abc import AbstractIncomingMessage

from benchmarks.protocol import Clock, arguments, ready
from pipeline.settings import load_settings


async def main() -> None:
    """Consume by callback, which is the quickest way aio-pika has."""
    wanted = arguments()
    every: int = wanted["ack_every"]
    count: int = wanted["count"]
    connection = await aio_pika.connect(load_settings().amqp_url)
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=wanted["prefetch"])
        queue = await channel.get_queue(wanted["queue"], ensure=False)
        finished = asyncio.Event()
        got = 0

        async def handle(message: AbstractIncomingMessage) -> None:
            nonlocal got
            got += 1
            if every == 1:
                await message.ack()
            elif got % every == 0 or got == count:
                await message.ack(multiple=True)
            if got == count:
                finished.set()

        ready()
        clock = Clock()
        await queue.consume(handle)
        await finished.wait()
        clock.report(count)


if __name__ == "__main__":
    uvloop.run(main())
