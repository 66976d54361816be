"""Consumes and acks with our consumer, doing nothing else. In: a queue and how many. Out: when it began and ended."""

from __future__ import annotations

import asyncio

import uvloop

from benchmarks.protocol import Clock, arguments, ready
from pipeline.amqp.consumer import Consumer
from pipeline.amqp.session import Session
from pipeline.settings import load_settings


async def main() -> None:
    """Consume what is there; the clock starts with the word to begin, or with the first delivery if that is later."""
    wanted = arguments()
    async with Session(load_settings(), "benchmark consumer") as session:
        consumer = Consumer(session, wanted["queue"], wanted["prefetch"])
        if wanted["early"]:  # the queue is empty: be there before the first message
            await consumer.start()
            ready()
            clock = Clock()
        else:
            ready()
            clock = Clock()
            await consumer.start()
        left: int = wanted["count"]
        while left > 0:
            batch = await consumer.arrived()
            consumer.settle(batch)
            left -= len(batch)
        await asyncio.sleep(0)  # the last acks go out with the next turn of the loop, if they did not already
        clock.report(wanted["count"])
        await consumer.close()


if __name__ == "__main__":
    uvloop.run(main())
