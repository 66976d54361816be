"""Reads a stream. In: its name and where to begin and to end. Out: batches of deliveries, each offset once, in order.

A stream keeps what is read; reading needs no lock and disturbs nobody. What is unacked at the broker bounds the memory
it takes. A lost connection is made again, and reading goes on behind the last batch that was handed out.

Asked for an offset that is gone, RabbitMQ begins in silence with the first message that is left. That is noticed by the
offsets themselves: behind a gap, which a stream may have by itself, it is asked where the stream begins.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TypeVar

from pipeline.amqp.consume_channel import ConsumeChannel
from pipeline.amqp.frames import ack_frame
from pipeline.amqp.lane import Lane
from pipeline.errors import (
    AccessRefused,
    AuthenticationFailed,
    BrokerError,
    BrokerUnavailable,
    LogTruncated,
    ObjectMissing,
    ProtocolViolation,
    VirtualHostMissing,
)
from pipeline.log import get_logger
from pipeline.message import Delivery
from pipeline.settings import Settings

log = get_logger("stream")

T = TypeVar("T")

PREFETCH = 5000
SILENCE = 1.0  # seconds without a first message after which a stream is empty
STALLED = 20.0  # seconds without a message that must come
PATIENCE = 60.0  # seconds a broker may be away before reading is given up
AGAIN = 0.5  # seconds between two tries to connect
OFFSET = "x-stream-offset"
FIRST = "first"

_FOR_GOOD = (ObjectMissing, AccessRefused, AuthenticationFailed, VirtualHostMissing, ProtocolViolation, LogTruncated)


async def read_stream(settings: Settings, stream: str) -> AsyncIterator[list[Delivery]]:
    """The messages in `stream` now, oldest first. Raises: BrokerError (ObjectMissing when there is no such stream)."""
    async for batch in read_from(settings, stream, 0, truncated_ok=True):
        yield batch


async def read_from(
    settings: Settings,
    stream: str,
    start: int | datetime,
    end: int | None = None,
    *,
    follow: bool = False,
    truncated_ok: bool = False,
    prefetch: int = PREFETCH,
    patience: float = PATIENCE,
) -> AsyncIterator[list[Delivery]]:
    """The messages of `stream` from `start` on: an offset, or a time, where the broker begins with the chunk that
    holds it, which may be a little earlier.

    Ends behind offset `end`, or behind what is its last message now; with `follow` never.

    Raises: LogTruncated when messages from offset `start` on are gone, unless `truncated_ok`; ObjectMissing without the
        stream; BrokerError when the broker was away for longer than `patience` seconds.
    """
    resumed = isinstance(start, int) and start > 0 and not truncated_ok
    if (end is None and not follow) or resumed:
        ends = await patient(lambda: ends_of(settings, stream), patience)
        if isinstance(start, int) and resumed and start > (ends[1] if ends else -1) + 1:
            raise _younger(stream, start, ends[1] if ends else -1)
        if end is None and not follow:
            if ends is None:
                return
            end = ends[1]
    at = start
    since = time.monotonic()
    while True:
        if end is not None and isinstance(at, int) and at > end:
            return
        try:
            async for batch in _one_life(settings, stream, at, end, truncated_ok, prefetch):
                yield batch
                at, since = offset_of(batch[-1]) + 1, time.monotonic()
            if end is not None:
                return
        except BrokerError as error:
            if isinstance(error, _FOR_GOOD) or time.monotonic() - since > patience:
                raise
            log.warning("reading goes on when the broker is back", stream=stream, at=str(at), error=str(error))
        await asyncio.sleep(AGAIN)


async def ends_of(settings: Settings, stream: str) -> tuple[int, int] | None:
    """The offsets of the first and the last message; None when it holds none. Raises: BrokerError."""
    lane = await Lane.open(settings, f"reading {stream}")
    try:
        last = await _last_offset(lane, stream)
        first = await _first_offset(lane, stream) if last is not None else None
        return None if last is None or first is None else (first, last)
    finally:
        await lane.close()


def offset_of(delivery: Delivery) -> int:
    """Where in its stream a message is."""
    offset = delivery.properties.headers.get(OFFSET)
    return offset if isinstance(offset, int) else -1


async def patient(question: Callable[[], Awaitable[T]], patience: float = PATIENCE) -> T:
    """The answer, however often the broker has to be asked within `patience` seconds. Raises: BrokerError."""
    until = time.monotonic() + patience
    while True:
        try:
            return await question()
        except BrokerError as error:
            if isinstance(error, _FOR_GOOD) or time.monotonic() > until:
                raise
        await asyncio.sleep(AGAIN)


async def _one_life(
    settings: Settings, stream: str, at: int | datetime, end: int | None, truncated_ok: bool, prefetch: int
) -> AsyncIterator[list[Delivery]]:
    """Reads on one connection until `end`, or until it is lost."""
    lane = await Lane.open(settings, f"reading {stream}")
    try:
        expected = at if isinstance(at, int) and at > 0 else None  # from the beginning is from what is left
        async with _reading(lane, stream, FIRST if at == 0 else at, prefetch) as reader:
            while True:
                batch = await reader.next(STALLED)
                if not batch:
                    await reader.channel.queue_state(stream)  # does it still answer?
                    if end is not None:
                        raise BrokerUnavailable(f"stream {stream} fell silent before its end; try again")
                    continue
                if expected is not None:
                    batch = [each for each in batch if offset_of(each) >= expected]
                    if batch and offset_of(batch[0]) > expected and not truncated_ok:
                        await _refuse_gap(lane, stream, expected)
                if end is not None and batch and offset_of(batch[-1]) >= end:
                    if batch := [each for each in batch if offset_of(each) <= end]:
                        yield batch
                    return
                if batch:
                    expected = offset_of(batch[-1]) + 1
                    yield batch
    finally:
        await lane.close()


async def _refuse_gap(lane: Lane, stream: str, wanted: int) -> None:
    first = await _first_offset(lane, stream)
    if first is not None and first > wanted:
        raise LogTruncated(
            f"stream {stream} begins at offset {first:,} now, and {wanted:,} was to be read next: {first - wanted:,}"
            " messages were dropped for their age or the stream's size",
            wanted,
            first,
        )


def _younger(stream: str, wanted: int, last: int) -> LogTruncated:
    ends = f"ends with offset {last:,}" if last >= 0 else "is empty"
    return LogTruncated(
        f"stream {stream} {ends}, and {wanted:,} was to be read next: there is no such offset yet, or the stream was"
        " deleted and declared again since",
        wanted,
        0,
    )


async def _last_offset(lane: Lane, stream: str) -> int | None:
    """The offset of the last message; None when the stream is empty."""
    async with _reading(lane, stream, "last", PREFETCH) as reader:
        batch = await reader.next(SILENCE)
        if not batch:
            return None
        # The broker hands out the last chunk in one go, so all of it is here when a later question is answered.
        # Waiting for silence instead would take for ever while somebody publishes.
        await reader.channel.queue_state(stream)
        return offset_of((reader.channel.arrived or batch)[-1])


async def _first_offset(lane: Lane, stream: str) -> int | None:
    async with _reading(lane, stream, FIRST, 1) as reader:
        batch = await reader.next(SILENCE)
        return offset_of(batch[0]) if batch else None


class _Reader:
    """A consumer of the stream. What was handed out is acked when more is asked for: that makes room for it."""

    def __init__(self, lane: Lane) -> None:
        self._wake = asyncio.Event()
        self._lane = lane
        self._unacked = 0
        self.channel = ConsumeChannel(lane, 1, self._wake)

    async def next(self, patience: float) -> list[Delivery]:
        """What has arrived; `[]` after so many seconds without any. Raises: BrokerError."""
        assert self.channel.channel is not None
        if self._unacked and self.channel.ended is None:
            self._lane.write(ack_frame(self.channel.channel.number, self._unacked, multiple=True))
            self._unacked = 0
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
        self._unacked = batch[-1].tag
        return batch


@asynccontextmanager
async def _reading(lane: Lane, stream: str, start: str | int | datetime, prefetch: int) -> AsyncIterator[_Reader]:
    reader = _Reader(lane)
    await reader.channel.open(stream, prefetch, {OFFSET: start})
    try:
        yield reader
    finally:
        assert reader.channel.channel is not None
        await lane.close_channel(reader.channel.channel)
