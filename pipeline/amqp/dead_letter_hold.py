"""Messages held: taken from a queue, not yet settled. In: a lane and a queue's name. Out: batches, in queue order.

What is not removed goes back when its channel is closed. A quorum queue puts what comes back at its front, so a whole
queue taken and returned is the queue as it was. Closing is also by far the cheapest way back: for a nack RabbitMQ
writes every returned message to its log again (3.10.8, 100,000 messages: half a minute and more, against 0.1 s).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

from aiormq.abc import AbstractChannel, DeliveredMessage

from pipeline.amqp.acks import AckLedger
from pipeline.amqp.connection import CLIENT_ERRORS
from pipeline.amqp.frames import ack_frame, split_route
from pipeline.amqp.lane import Lane
from pipeline.amqp.queue_length import queue_lengths
from pipeline.errors import BrokerError, BrokerUnavailable
from pipeline.message import Delivery

QUIET = 10.0  # s without a delivery before asking whether the queue has become shorter
STALLED = 60.0  # s without a delivery from a queue that still holds messages
POLL = 0.01  # s between two questions to the broker
RETURN_PATIENCE = 15.0  # s for one channel's messages to be back in the queue

# Deliveries asked for at once. The broker reads all of them into its memory, so it starts small and grows with what
# the messages turn out to weigh.
FIRST_WINDOW = 32
LARGEST_WINDOW = 5_000
WINDOW_GROWTH = 16
WINDOW_BYTES = 32 * 1024 * 1024

# A closed channel's consumers give back one after the other in the order of their tags, because Erlang keeps maps of
# up to 32 keys sorted; beyond that the order is anybody's guess.
WINDOWS_PER_CHANNEL = 24


class Hold:
    """Messages taken and not settled. `since` is when it began, on the monotonic clock.

    `quiet` is how many seconds without a delivery make it ask whether the queue has become shorter.
    """

    def __init__(self, lane: Lane, queue: str, quiet: float = QUIET) -> None:
        self._lane = lane
        self._queue = queue
        self._quiet = quiet
        self._readers: list[_Reader] = []
        self._window = FIRST_WINDOW
        self.since = time.monotonic()

    async def batches(self, most: int) -> AsyncIterator[list[Delivery]]:
        """The next `most` messages in the queue's order, batch by batch; fewer when the queue has become shorter.

        Raises: BrokerError.
        """
        while most > 0:
            wanted = min(most, self._window)
            batch = await (await self._reader()).take(wanted)
            if batch:
                yield batch
            if len(batch) < wanted:
                return
            most -= wanted
            weight = sum(len(each.body) + len(each.raw_properties) for each in batch) // wanted + 1
            self._window = max(1, min(wanted * WINDOW_GROWTH, WINDOW_BYTES // weight, LARGEST_WINDOW))

    async def is_empty(self) -> bool:
        """Ask the queue itself for a message: a count of zero may also mean that it has no leader.

        Raises: BrokerError.
        """
        return not await (await self._reader()).take(1, wait=False)

    def remove(self, deliveries: Sequence[Delivery]) -> None:
        """Take these out of the queue for good (basic.ack). Raises: BrokerError.

        Does not wait, so that a caller's count can't differ from what was sent.
        """
        by_reader: dict[int, list[int]] = {}
        for each in deliveries:
            by_reader.setdefault(each.epoch, []).append(each.tag)
        for number, tags in by_reader.items():
            self._readers[number].ack(tags)

    async def give_back(self) -> None:
        """Return everything unsettled, oldest first. Never fails: a lost connection returns it all the same."""
        readers, self._readers = self._readers, []
        try:
            while readers:
                reader = readers.pop(0)
                await reader.close()
                if readers:  # newer ones must not overtake
                    await self._wait_until_back(sum(each.live_windows for each in readers))
        except BrokerError:
            pass
        finally:
            for reader in readers:
                await reader.close()

    async def _wait_until_back(self, consumers: int) -> None:
        deadline = time.monotonic() + RETURN_PATIENCE
        while time.monotonic() < deadline:
            _, live = await queue_lengths(self._lane, self._queue)
            if live <= consumers:
                return
            await asyncio.sleep(POLL)

    async def _reader(self) -> _Reader:
        if not self._readers or self._readers[-1].windows >= WINDOWS_PER_CHANNEL:
            reader = _Reader(self._lane, self._queue, len(self._readers), self._quiet)
            await reader.open()
            self._readers.append(reader)
        return self._readers[-1]


class _Reader:
    """One channel that holds: a consumer for each window (frames.ChannelSink)."""

    def __init__(self, lane: Lane, queue: str, number: int, quiet: float) -> None:
        self._lane = lane
        self._queue = queue
        self._number = number
        self._quiet = quiet
        self._arrived: list[Delivery] = []
        self._woken = asyncio.Event()
        self._ledger = AckLedger()
        self._unsettled: dict[int, int] = {}  # delivery tag → window
        self.windows = 0

    async def open(self) -> None:
        self._channel: AbstractChannel = await self._lane.channel(self)
        self._channel.closing.add_done_callback(lambda _: self._woken.set())
        self._lane.lost.add_done_callback(lambda _: self._woken.set())

    @property
    def live_windows(self) -> int:
        """Consumers the broker still counts: those with something unsettled."""
        return len(set(self._unsettled.values()))

    async def take(self, wanted: int, wait: bool = True) -> list[Delivery]:
        self._check()
        consumer = f"{self.windows:04d}"
        try:
            await self._channel.basic_qos(prefetch_count=wanted)
            await self._channel.basic_consume(self._queue, _never_called, consumer_tag=consumer)
            if wait:
                await self._wait_for(wanted)
            # A consumer that stays would take a newer message in the place of every one that is removed.
            await self._channel.basic_cancel(consumer)
        except CLIENT_ERRORS as error:
            raise self._lane.explain(error) from error
        batch, self._arrived = self._arrived, []
        if batch:
            self._ledger.took(batch[-1].tag)
        self._unsettled.update(dict.fromkeys((each.tag for each in batch), self.windows))
        self.windows += 1
        return batch

    async def _wait_for(self, wanted: int) -> None:
        last_arrival, seen = time.monotonic(), 0
        while len(self._arrived) < wanted:
            self._woken.clear()
            try:
                async with asyncio.timeout(self._quiet):
                    await self._woken.wait()
            except TimeoutError:
                ready, _ = await queue_lengths(self._lane, self._queue)
                if ready == 0:
                    return  # some expired or were dropped by a policy meanwhile
            self._check()
            if len(self._arrived) > seen:
                last_arrival, seen = time.monotonic(), len(self._arrived)
            elif time.monotonic() - last_arrival > STALLED:
                raise BrokerUnavailable(f"{self._queue} has delivered nothing for {STALLED:g} s; has it a leader?")

    def ack(self, tags: Sequence[int]) -> None:
        self._check()
        self._ledger.settle(tags)
        upto, singles = self._ledger.take()
        number = self._channel.number
        frames = [ack_frame(number, upto, multiple=True)] if upto else []
        frames += [ack_frame(number, tag) for tag in singles]
        self._lane.write(b"".join(frames))
        for tag in tags:
            self._unsettled.pop(tag, None)

    async def close(self) -> None:
        await self._lane.close_channel(self._channel)

    def _check(self) -> None:
        closing = self._channel.closing
        if self._lane.is_lost:
            raise self._lane.lost.result()
        if closing.done():
            cause = None if closing.cancelled() else closing.exception()
            raise self._lane.explain(cause or ConnectionError(f"the channel that read {self._queue} was closed"))

    # --- from the broker -----------------------------------------------------------------------------------------

    def delivered(self, tag: int, redelivered: bool, route: bytes, properties: bytes, body: bytes) -> None:
        exchange, routing_key = split_route(route)
        self._arrived.append(Delivery(tag, self._number, redelivered, exchange, routing_key, properties, body))

    def returned(self, code: int, text: str, route: bytes, properties: bytes, body: bytes) -> None:
        raise AssertionError("a reading channel publishes nothing")

    def confirmed(self, tag: int, multiple: bool, ack: bool) -> None:
        raise AssertionError("a reading channel publishes nothing")

    def flush(self) -> None:
        self._woken.set()


async def _never_called(message: DeliveredMessage) -> None:
    raise AssertionError(f"{message!r} should have gone past the client library")
