"""How long a queue is and how many hold its messages, asked over AMQP. In: a lane and a queue's name. Out: counts."""

from __future__ import annotations

import time

from pipeline.amqp.connection import CLIENT_ERRORS
from pipeline.amqp.lane import Lane
from pipeline.errors import BrokerUnavailable, ObjectMissing

# A quorum queue whose leader does not answer RabbitMQ within 250 ms is reported with zeros (seen on 3.10.8 with a
# queue of 100,000 messages). Zeros that took this long (s) are no answer.
DOUBTFUL = 0.2
BUSY_PATIENCE = 30.0  # s for a leader to find time for a real answer


async def queue_lengths(lane: Lane, name: str) -> tuple[int, int]:
    """(messages ready, consumers) of a queue. A consumer counts until the last message it holds is settled.

    Raises: ObjectMissing when there is no such queue; BrokerError.
    """
    deadline = time.monotonic() + BUSY_PATIENCE
    while True:
        asked = time.monotonic()
        ready, consumers = await _passive_declare(lane, name)
        answered = time.monotonic()
        if ready or consumers or answered - asked < DOUBTFUL:
            return ready, consumers
        if answered > deadline:
            raise BrokerUnavailable(f"the leader of {name} has not answered for {BUSY_PATIENCE:g} s; try again later")


async def _passive_declare(lane: Lane, name: str) -> tuple[int, int]:
    try:
        channel = await lane.plain_channel()
        try:
            answer = await channel.queue_declare(name, passive=True)
        finally:
            await lane.close_channel(channel)
    except CLIENT_ERRORS as error:
        problem = lane.explain(error)
        if isinstance(problem, ObjectMissing):
            raise ObjectMissing(
                f"queue {name} is not on the broker; `pipeline topology apply` declares what the topology files name"
            ) from error
        raise problem from error
    return answer.message_count or 0, answer.consumer_count or 0
