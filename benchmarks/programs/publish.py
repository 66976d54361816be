"""Publishes flat out with our publisher. In: how many, how large, in which way. Out: when it began and ended.

`messages`: messages that are made already, which is the least that can be done (what the lane alone can).
`events`: events made, validated and encoded one by one, published 500 a call, as `pipeline publish --file` does.
`single`: the same, each published by a call of its own, from 500 tasks at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import uvloop

from benchmarks.application import OrderPlaced
from benchmarks.payload import EVENT_TYPE, event_id, order
from benchmarks.protocol import Clock, arguments, ready
from pipeline import Event, Publisher

CALL = 500  # events a call
CALLS = 4  # under way at once
TASKS = 500  # publishing one by one
MADE = 20 * CALL  # different messages, published again and again: as many as are wanted would need much memory


def event(number: int, size: int) -> Event[OrderPlaced]:
    """Order `number` as a caller would make it."""
    return Event(EVENT_TYPE, OrderPlaced(**order(number, size)), event_id(number))


async def messages(publisher: Publisher, first: int, count: int, size: int) -> Clock:
    """See the module."""
    encode = publisher.codec.encode
    calls = [[encode(event(at + index, size)) for index in range(CALL)] for at in range(0, MADE, CALL)]
    turns = iter(range(0, count, CALL))

    async def sender() -> None:
        for at in turns:
            errors = await publisher.send(calls[at // CALL % len(calls)][: count - at])
            if errors:
                raise next(iter(errors.values()))

    ready()
    clock = Clock()
    await asyncio.gather(*(sender() for _ in range(CALLS)))
    return clock


async def events(publisher: Publisher, first: int, count: int, size: int) -> Clock:
    """See the module."""
    turns = iter(range(first, first + count, CALL))

    async def sender() -> None:
        for at in turns:
            await publisher.publish_many([event(number, size) for number in range(at, min(at + CALL, first + count))])

    ready()
    clock = Clock()
    await asyncio.gather(*(sender() for _ in range(CALLS)))
    return clock


async def single(publisher: Publisher, first: int, count: int, size: int) -> Clock:
    """See the module."""
    numbers: Iterator[int] = iter(range(first, first + count))

    async def sender() -> None:
        for number in numbers:
            await publisher.publish(event(number, size))

    ready()
    clock = Clock()
    await asyncio.gather(*(sender() for _ in range(TASKS)))
    return clock


async def main() -> None:
    """Do what the argument says."""
    wanted = arguments()
    way = {"messages": messages, "events": events, "single": single}[wanted["way"]]
    async with Publisher() as publisher:
        clock = await way(publisher, wanted.get("first", 0), wanted["count"], wanted["size"])
        clock.report(wanted["count"])


if __name__ == "__main__":
    uvloop.run(main())
