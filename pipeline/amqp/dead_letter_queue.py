"""A dead-letter queue to ourselves. In: settings and a queue's name. Out: holds on its messages, copies to elsewhere.

RabbitMQ has no way to read a queue without taking from it, so a look takes the *whole* queue and gives it back
(`dead_letter_hold`). Two at once would each see half: whoever reads holds a lock first. Whoever dies while reading
loses nothing: the broker gives messages and lock back itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from pipeline.amqp.confirms import ConfirmChannel
from pipeline.amqp.connection import CLIENT_ERRORS
from pipeline.amqp.dead_letter_hold import Hold
from pipeline.amqp.dead_letter_limit import refuse_low_limit
from pipeline.amqp.lane import Lane
from pipeline.amqp.queue_length import queue_lengths
from pipeline.errors import BrokerUnavailable, ObjectLocked, PublishError, PublishTimeout
from pipeline.message import Message
from pipeline.settings import Settings

LOCK_PATIENCE = 5.0  # s to wait for another command that reads the same queue
SETTLE_PATIENCE = 15.0  # s for the broker to take back what another reader held
BROKEN_OFF_PATIENCE = 2.0  # s to give back in order after an error
LOCK_POLL = 0.1  # s between two tries for the lock
POLL = 0.01  # s between two questions to the broker


class DeadLetterQueue:
    """A dead-letter queue that only we read; made by `open_dead_letter_queue`. `count` is its length at opening."""

    def __init__(self, lane: Lane, name: str, count: int, publish_deadline: float) -> None:
        self.name = name
        self.count = count
        self._lane = lane
        self._publish_deadline = publish_deadline
        self._confirms: ConfirmChannel | None = None

    async def require(self, queue: str) -> None:
        """Make sure that `queue` is there. Raises: ObjectMissing."""
        await queue_lengths(self._lane, queue)

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[Hold]:
        """Take messages for the block; what was not removed by its end is back in its old order after it.

        Raises: BrokerError.
        """
        hold = Hold(self._lane, self.name)
        try:
            yield hold
        except BaseException:
            # In good order if the broker still answers; else it takes back what it finds when the connection ends.
            with suppress(TimeoutError):
                async with asyncio.timeout(BROKEN_OFF_PATIENCE):
                    await hold.give_back()
            raise
        await hold.give_back()
        await _settled(self._lane, self.name)

    async def copy(self, messages: Sequence[Message]) -> dict[int, PublishError]:
        """Publish `messages`, confirmed. Returns the errors by index: all without one are in their queues.

        Raises: PublishTimeout when the confirms don't come (those messages may or may not be there); BrokerError.
        """
        if self._confirms is None:
            self._confirms = await ConfirmChannel.open(self._lane)
        receipt = self._confirms.publish(messages)
        try:
            async with asyncio.timeout(self._publish_deadline):
                await receipt.done
        except TimeoutError:
            raise PublishTimeout(
                f"the broker did not confirm {len(messages)} messages within {self._publish_deadline:g} s; "
                "they may or may not have arrived"
            ) from None
        return dict(receipt.errors)


@asynccontextmanager
async def open_dead_letter_queue(settings: Settings, name: str) -> AsyncIterator[DeadLetterQueue]:
    """The dead-letter queue `name`, read by nobody else for the length of the block.

    Raises: ObjectMissing when it is not on the broker; ObjectLocked when another command or program reads it and does
    not end within a few seconds; TopologyDrift when looking would cost messages; BrokerError.
    """
    lane = await Lane.open(settings, f"pipeline dlq {name}")
    try:
        await queue_lengths(lane, name)
        await refuse_low_limit(settings, name)
        await _lock(lane, name)
        count = await _settled(lane, name) or await _verify_empty(lane, name)
        yield DeadLetterQueue(lane, name, count, settings.publish_deadline)
    finally:
        await lane.close()


async def _lock(lane: Lane, name: str) -> None:
    """Declare an exclusive queue: a lock that the broker frees when its owner's connection ends, however it ends."""
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            channel = await lane.plain_channel()
            await channel.queue_declare(
                f"{name}.lock", exclusive=True, auto_delete=True, arguments={"x-queue-type": "classic"}
            )
            return
        except CLIENT_ERRORS as error:
            problem = lane.explain(error)
            if not isinstance(problem, ObjectLocked):
                raise problem from error
            if time.monotonic() > deadline:
                raise ObjectLocked(
                    f"another `pipeline dlq` command is reading {name}; try again when it has ended"
                ) from error
        await asyncio.sleep(LOCK_POLL)


async def _settled(lane: Lane, name: str) -> int:
    """The queue's length once nobody holds any of its messages. Raises: ObjectLocked when somebody goes on."""
    deadline = time.monotonic() + SETTLE_PATIENCE
    while True:
        ready, consumers = await queue_lengths(lane, name)
        if not consumers:
            return ready
        if time.monotonic() > deadline:
            raise ObjectLocked(
                f"{consumers} other consumer(s) take messages from {name}; stop them: a look needs the whole queue"
            )
        await asyncio.sleep(POLL)


async def _verify_empty(lane: Lane, name: str) -> int:
    """0 when the queue itself has nothing to give. Raises: BrokerUnavailable when its count was wrong."""
    hold = Hold(lane, name)
    try:
        if await hold.is_empty():
            return 0
    finally:
        await hold.give_back()
    raise BrokerUnavailable(f"the broker calls {name} empty and yet it is not; its leader is changing: try again")
