"""Reads a stream from its first message to what is its last now. In: a stream's name. Out: batches of deliveries.

A stream keeps what is read; reading needs no lock and disturbs nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from pipeline.amqp.consume_channel import ConsumeChannel
from pipeline.amqp.frames import ack_frame
from pipeline.amqp.lane import Lane
from pipeline.errors import BrokerUnavailable
from pipeline.message import Delivery
from pipeline.settings import Settings

PREFETCH = 5000
SILENCE = 1.0  # seconds without a message after which the last chunk has been seen, or the stream is empty
STALLED = 20.0  # seconds without a message that must come
OFFSET = "x-stream-offset"


async def read_stream(settings: Settings, stream: str) -> AsyncIterator[list[Delivery]]:
    """The messages in `stream` now, oldest first. Raises: BrokerError (ObjectMissing when there is no such stream)."""
    lane = await Lane.open(settings, f"reading {stream}")
    try:
        end = await _last_offset(lane, stream)
        if end is None:
            return
        async with aclosing(_consume(lane, stream, "first", STALLED)) as batches:
            async for batch in batches:
                if offset_of(batch[-1]) >= end:
                    yield [each for each in batch if offset_of(each) <= end]
                    return
                yield batch
        raise BrokerUnavailable(f"stream {stream} fell silent before its end; try again")
    finally:
        await lane.close()


def offset_of(delivery: Delivery) -> int:
    """Where in its stream a message is."""
    offset = delivery.properties.headers.get(OFFSET)
    return offset if isinstance(offset, int) else -1


async def _last_offset(lane: Lane, stream: str) -> int | None:
    """The offset of the last message; None when the stream is empty."""
    last = None
    async for batch in _consume(lane, stream, "last", SILENCE):
        last = offset_of(batch[-1])
    return last


async def _consume(lane: Lane, stream: str, start: str, silence: float) -> AsyncGenerator[list[Delivery], None]:
    wake = asyncio.Event()
    channel = ConsumeChannel(lane, 1, wake)
    await channel.open(stream, PREFETCH, {OFFSET: start})
    assert channel.channel is not None
    number = channel.channel.number
    try:
        while True:
            if not channel.arrived:
                if channel.ended is not None:
                    raise channel.ended
                wake.clear()
                try:
                    async with asyncio.timeout(silence):
                        await wake.wait()
                except TimeoutError:
                    return
                continue
            batch, channel.arrived = channel.arrived, []
            lane.write(ack_frame(number, batch[-1].tag, multiple=True))
            yield batch
    finally:
        await lane.close_channel(channel.channel)
