"""One of many schedulers is the active one. In: settings. Out: the baton, with the memory of the ticks done.

The baton is a message of a quorum queue with a single active consumer: who has it in hand is active. When that one
ends, however it ends, the broker gives the message to the next. A new memory is published before the old one is acked,
so one is always there; when both are, the later ticks count.
"""

from __future__ import annotations

import asyncio

from pipeline.amqp.consumer import Consumer
from pipeline.amqp.publisher import Publisher
from pipeline.amqp.queue_length import queue_lengths
from pipeline.amqp.session import Session
from pipeline.errors import BrokerUnavailable, PublishError
from pipeline.event import new_id
from pipeline.message import Delivery, Message
from pipeline.properties import Properties, encode_properties
from pipeline.scheduler.memory import Memory, from_json, merge
from pipeline.settings import Settings
from pipeline.topology.schedules import QUEUE

PREFETCH = 100  # memories in the queue: as a rule one


class Baton:
    """Waits for the baton and keeps it. `changed` is set when it came, went, or a memory arrived."""

    def __init__(self, settings: Settings, publisher: Publisher) -> None:
        self._publisher = publisher
        self._session = Session(settings, "pipeline scheduler")
        self._consumer = Consumer(self._session, QUEUE, PREFETCH, self._lay_down)
        self._tokens: list[tuple[Delivery, Memory]] = []
        self.changed = asyncio.Event()

    @property
    def epoch(self) -> int:
        """Changes when the connection was lost: others may have been active since."""
        return self._consumer.epoch

    def is_held(self) -> bool:
        """This scheduler is the active one."""
        epoch = self._consumer.epoch
        return self._consumer.in_hand > 0 and any(token.epoch == epoch for token, _ in self._tokens)

    @property
    def memory(self) -> Memory:
        """What was remembered last; only while it is held."""
        return merge(memory for _, memory in self._tokens)

    async def start(self) -> None:
        """Get in line. Raises: ObjectMissing when the topology is not applied; BrokerError."""
        await self._lay_down()
        await self._consumer.start()

    async def run(self) -> None:
        """Take what comes until `stop`."""
        while batch := await self._consumer.arrived():
            epoch = self._consumer.epoch
            self._tokens = [each for each in self._tokens if each[0].epoch == epoch]
            self._tokens += [(delivery, from_json(delivery.body)) for delivery in batch]
            newest = self._tokens[-1][1]
            covered = [each for each in self._tokens[:-1] if merge([each[1], newest]) == newest]
            self._tokens = [each for each in self._tokens if each not in covered]
            self._consumer.settle([delivery for delivery, _ in covered])
            self.changed.set()

    async def save(self, memory: Memory) -> PublishError | None:
        """Remember durably; the error when it is not known to be."""
        return (await self._publisher.send([_token(memory)])).get(0)

    async def close(self) -> None:
        """Pass it on: the next in line has it at once."""
        await self._consumer.stop()
        await self._consumer.close()
        await self._session.close()

    async def _lay_down(self) -> None:
        """Where nobody has the baton and none lies there, there is none yet. One too many does no harm."""
        ready, consumers = await queue_lengths(await self._session.lane(), QUEUE)
        if not ready and not consumers:
            error = await self.save(Memory())
            if error is not None:
                raise BrokerUnavailable(f"{QUEUE} can't be written: {error}")


def _token(memory: Memory) -> Message:
    body = memory.to_json()
    message_id = new_id()
    return Message(
        "", QUEUE, body, encode_properties(Properties(message_id, content_type="application/json")), message_id
    )
