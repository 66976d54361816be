"""How long a queue is and how many hold its messages, asked over AMQP. In: a queue's name. Out: counts one can trust.

A quorum queue whose leader does not answer RabbitMQ within 250 ms is reported with zeros (seen on 3.10.8 with a queue
of 100,000 messages). So zeros that took long are no answer, and the question is put again. A queue without a leader,
whose node is known to be gone, is reported with zeros at once: who asks has to know whether there are consumers.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable

from aiormq.abc import AbstractChannel
from pamqp.commands import Queue

from pipeline.amqp.lane import Lane
from pipeline.amqp.session import Session
from pipeline.errors import BrokerError, BrokerUnavailable, ObjectMissing

DOUBTFUL = 0.2  # seconds; zeros that took this long are no answer
BUSY_PATIENCE = 30.0  # seconds for a leader to find time for a real answer


async def true_lengths(declare: Callable[[], Awaitable[Queue.DeclareOk]], name: str) -> tuple[int, int]:
    """(messages ready, consumers) of a queue, which `declare` asks for with a passive declare.

    A consumer counts until the last message it holds is settled.

    Raises: BrokerUnavailable when the queue's leader gives no answer in time; what `declare` raises.
    """
    deadline = time.monotonic() + BUSY_PATIENCE
    while True:
        asked = time.monotonic()
        answer = await declare()
        answered = time.monotonic()
        ready, consumers = answer.message_count or 0, answer.consumer_count or 0
        if ready or consumers or answered - asked < DOUBTFUL:
            return ready, consumers
        if answered > deadline:
            raise BrokerUnavailable(f"the leader of {name} has not answered for {BUSY_PATIENCE:g} s; try again later")


async def queue_lengths(lane: Lane, name: str) -> tuple[int, int]:
    """(messages ready, consumers) of a queue.

    Raises: ObjectMissing when there is no such queue; BrokerError.
    """

    async def declare() -> Queue.DeclareOk:
        channel = await lane.ask(lane.plain_channel())
        try:
            return await lane.ask(channel.queue_declare(name, passive=True))
        finally:
            await lane.close_channel(channel)

    try:
        return await true_lengths(declare, name)
    except ObjectMissing as error:
        raise ObjectMissing(
            f"queue {name} is not on the broker; `pipeline topology apply` declares what the topology files name"
        ) from error


class QueueLengths:
    """Asks again and again, over one channel kept open between questions."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._channel: AbstractChannel | None = None

    async def ask(self, queues: Iterable[str]) -> dict[str, tuple[int, int]]:
        """(messages ready, consumers) by queue; messages in consumers' hands are not among them.

        Raises: BrokerError (ObjectMissing for a queue that is not declared).
        """
        lane = await self._session.lane()
        try:
            if self._channel is None or self._channel.is_closed:
                self._channel = await lane.ask(lane.plain_channel())
            return {queue: await self._ask(lane, self._channel, queue) for queue in queues}
        except BrokerError:
            self._channel = None
            raise

    @staticmethod
    async def _ask(lane: Lane, channel: AbstractChannel, queue: str) -> tuple[int, int]:
        return await true_lengths(lambda: lane.ask(channel.queue_declare(queue, passive=True)), queue)
