"""A mark on the broker: a queue whose being there says something, with one message that says more. In and out: bytes.

A quorum queue of length 1 that drops its head: what is written last is what is there, whoever is killed when.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiormq

from pipeline.amqp.connection import open_connection
from pipeline.amqp.declare import DECLARE_TIMEOUT
from pipeline.errors import ObjectLocked
from pipeline.settings import Settings

ARGUMENTS: aiormq.abc.ArgumentsType = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "drop-head"}
LOCK = ".lock"  # behind the queue's name: an exclusive queue, freed by the broker when its connection ends


class Mark:
    """A mark that is ours for now. Its methods raise the client library's errors, which `held_mark` translates."""

    def __init__(self, channel: aiormq.abc.AbstractChannel, queue: str) -> None:
        self._channel = channel
        self.queue = queue

    async def read(self) -> bytes | None:
        """What was written last; None when nothing was."""
        found = await self._channel.basic_get(self.queue, no_ack=False, timeout=DECLARE_TIMEOUT)
        if found.delivery_tag is None:
            return None
        await self._channel.basic_reject(found.delivery_tag, requeue=True)
        return found.body

    async def write(self, content: bytes) -> None:
        """Keep this instead of what was there; confirmed."""
        properties = aiormq.spec.Basic.Properties(delivery_mode=2)
        await self._channel.basic_publish(
            content, routing_key=self.queue, properties=properties, mandatory=True, timeout=DECLARE_TIMEOUT
        )

    async def delete(self) -> None:
        """Take the mark away."""
        await self._channel.queue_delete(self.queue, timeout=DECLARE_TIMEOUT)


@asynccontextmanager
async def held_mark(settings: Settings, queue: str) -> AsyncIterator[Mark]:
    """Declare the mark, and keep others from it for the block. Raises: ObjectLocked when one has it, BrokerError."""
    async with open_connection(settings, f"mark {queue}") as connection:
        channel = await (await connection.channel(publisher_confirms=True)).get_underlay_channel()
        try:
            await channel.queue_declare(
                queue + LOCK,
                exclusive=True,
                auto_delete=True,
                arguments={"x-queue-type": "classic"},
                timeout=DECLARE_TIMEOUT,
            )
        except aiormq.ChannelLockedResource as error:
            raise ObjectLocked(f"another command is at work on {queue}; let it end") from error
        await channel.queue_declare(queue, durable=True, arguments=ARGUMENTS, timeout=DECLARE_TIMEOUT)
        yield Mark(channel, queue)
