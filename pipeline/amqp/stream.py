"""Reads a stream from its first message to what is its last now. In: a stream's name. Out: batches of deliveries.

A stream keeps what is read; reading needs no lock and disturbs nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pipeline.amqp.consume_channel import ConsumeChannel
from pipeline.amqp.frames import ack_frame
from pipeline.amqp.lane import Lane
from pipeline.errors import BrokerUnavailable
from pipeline.message import Delivery
from pipeline.settings import Settings

PREFETCH = 5000
SILENCE = 1.0  # seconds without a first message after which a stream is empty
STALLED = 20.0  # seconds without a message that must come
OFFSET = "x-stream-offset"


async def read_stream(settings: Settings, stream: str) -> AsyncIterator[list[Delivery]]:
    """The messages in `stream` now, oldest first. Raises: BrokerError (ObjectMissing when there is no such stream)."""
    lane = await Lane.open(settings, f"reading {stream}")
    try:
        end = await _last_offset(lane, stream)
        if end is None:
            return
        async with _reading(lane, stream, "first") as reader:
            while batch := await reader.next(STALLED):
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
    async with _reading(lane, stream, "last") as reader:
        batch = await reader.next(SILENCE)
        if not batch:
            return None
        # The broker hands out the last chunk in one go, so all of it is here when a later question is answered.
        # Waiting for silence instead would take for ever while somebody publishes.
        await reader.channel.queue_state(stream)
        return offset_of((reader.channel.arrived or batch)[-1])


class _Reader:
    """A consumer of the stream; what it is given is acked at once, which only makes room for more."""

    def __init__(self, lane: Lane) -> None:
        self._wake = asyncio.Event()
        self._lane = lane
        self.channel = ConsumeChannel(lane, 1, self._wake)

    async def next(self, patience: float) -> list[Delivery]:
        """What has arrived; `[]` after so many seconds without any. Raises: BrokerError."""
        try:
            async with asyncio.timeout(patience):
                while not self.channel.arrived:
                    if self.channel.ended is not None:
                        raise self.channel.ended
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            return []
        batch, self.channel.arrived = self.channel.arrived, []
        assert self.channel.channel is not None
        self._lane.write(ack_frame(self.channel.channel.number, batch[-1].tag, multiple=True))
        return batch


@asynccontextmanager
async def _reading(lane: Lane, stream: str, start: str) -> AsyncIterator[_Reader]:
    reader = _Reader(lane)
    await reader.channel.open(stream, PREFETCH, {OFFSET: start})
    try:
        yield reader
    finally:
        assert reader.channel.channel is not None
        await lane.close_channel(reader.channel.channel)
