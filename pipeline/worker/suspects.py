"""Crash isolation. In: deliveries, some of which were in hand when a worker died. Out: those one at a time.

The broker counts every delivery that a dying worker held, not only the guilty one. So a worker begins with prefetch 1
and goes on that way while what arrives has been delivered before: if it dies, only the message in hand is counted. With
the first message that is new it turns to full speed. A worker at full speed that receives messages which were in hand
of dead workers more than once finishes what else it has, gives those back and turns to prefetch 1.
"""

from __future__ import annotations

import asyncio

from pipeline.amqp.consumer import Consumer
from pipeline.log import get_logger
from pipeline.message import Delivery

log = get_logger("suspects")

SUSPECT_AT_FULL_SPEED = 2  # earlier deliveries; one may be an innocent neighbour of a crash, or a lost connection
CHECK = 0.01  # seconds between looks whether everything else is settled


class Suspects:
    """Stands between consumer and intake. One task calls `arrived`."""

    def __init__(self, consumer: Consumer, prefetch: int) -> None:
        self._consumer = consumer
        self._full = prefetch
        self._held: list[Delivery] = []

    @property
    def careful(self) -> bool:
        """One message at a time."""
        return self._consumer.prefetch == 1 and self._full > 1

    async def start(self) -> None:
        """Begin to consume, carefully. Raises: BrokerError."""
        self._consumer.prefetch = 1
        await self._consumer.start()

    async def arrived(self) -> list[Delivery]:
        """The next batch; `[]` once stopped."""
        while True:
            if self._held:
                await self._let_go()
            batch = await self._consumer.arrived()
            if self.careful:
                if batch and not any(each.delivery_count for each in batch):
                    await self._consumer.resume(self._full)
                return batch
            if not any(is_suspect(each) for each in batch):
                return batch
            # From here on a restored consumer is a careful one, too.
            self._consumer.prefetch = 1
            batch += await self._consumer.pause()
            self._held = [each for each in batch if is_suspect(each)]
            log.warning("messages were in hand of dead workers: taking them one at a time", n=len(self._held))
            others = [each for each in batch if not is_suspect(each)]
            if others:
                return others

    async def _let_go(self) -> None:
        """Give the suspects back once everything else is settled, and begin again with one at a time."""
        held, self._held = self._held, []
        epoch = held[0].epoch
        while self._consumer.epoch == epoch and self._consumer.in_hand > len(held):  # noqa: ASYNC110 - a rare turn
            await asyncio.sleep(CHECK)
        self._consumer.requeue(held)
        await self._consumer.resume(1)


def is_suspect(delivery: Delivery) -> bool:
    """Whether it was in hand of workers that died, more than once."""
    return delivery.redelivered and delivery.delivery_count >= SUSPECT_AT_FULL_SPEED
