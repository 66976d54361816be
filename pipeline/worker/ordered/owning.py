"""Partitions taken, given back and lost. In: first deliveries, the clock, who else is there. Out: a `Life` for each.

Who gets the first delivery of a partition takes it in the database; what that process commits then counts, and nobody
else's commits do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from pipeline.amqp.consumer import Consumer
from pipeline.log import get_logger
from pipeline.store.ordered.store import OrderedStore
from pipeline.store.patience import patiently
from pipeline.worker.ordered.life import Life
from pipeline.worker.ordered.sharing import Shares

log = get_logger("ordered")

LOOK = 1.0  # seconds between looks at shares and at what is held too long
HELD = 600.0  # seconds a delivery is held at most: RabbitMQ closes the channel after 30 minutes
QUIET = 2.0  # seconds to end what is begun before a partition is given back


class Owning:
    """What this process, `me`, holds of one subscription's partitions."""

    def __init__(self, subscription: str, store: OrderedStore, shares: Shares, me: str) -> None:
        self._subscription = subscription
        self._store = store
        self._shares = shares
        self._me = me
        self._lives: dict[str, Life] = {}
        self._handing: set[asyncio.Task[None]] = set()

    @property
    def quiet(self) -> bool:
        """Nothing is begun and not ended."""
        return all(life.quiet for life in self._lives.values())

    @property
    def anything_open(self) -> bool:
        """Whether something that arrived is not settled."""
        return any(life.open for life in self._lives.values())

    def begin_nothing(self) -> None:
        """What is not begun stays so: the worker ends."""
        for life in self._lives.values():
            life.closing = True

    def end(self, partition: str) -> None:
        """It is not consumed any more."""
        if (life := self._lives.pop(partition, None)) is not None:
            life.end()

    def end_all(self) -> None:
        """The worker is over: no wait that was begun goes on."""
        for partition in list(self._lives):
            self.end(partition)

    async def life(self, partition: str, consumer: Consumer, epoch: int) -> Life:
        """The life to which deliveries of the consumer's `epoch` belong; the partition is taken when it is new."""
        life = self._lives.get(partition)
        if life is not None and not life.ended and life.epoch == epoch:
            return life
        if life is not None:
            life.end()
        token = await patiently(self._subscription, lambda: self._store.take(partition, self._me))
        rows = await patiently(self._subscription, self._store.lines)
        log.info("took a partition", subscription=self._subscription, partition=partition, epoch=token)
        life = self._lives[partition] = Life(partition, consumer, epoch, token, rows)
        return life

    async def look_after(self, consumed: Callable[[], Sequence[str]]) -> None:
        """Give back what is another's share, and what has been held for long; notice lives that have ended. For ever.

        `consumed` are the partitions that all processes consume now, in an order that is the same for all.
        """
        while True:
            await asyncio.sleep(LOOK)
            await self._shares.look()
            partitions = consumed()
            for life in list(self._lives.values()):
                if life.ended:
                    continue
                oldest = life.oldest
                if life.epoch != life.consumer.epoch:
                    life.end()
                elif oldest is not None and time.monotonic() - oldest.arrived > HELD:
                    await self._give_back(life, "held for long")
                elif self._shares.not_ours(life.partition, partitions):
                    await self._give_back(life, "another's share")

    def taken_away(self, life: Life) -> None:
        """The database says that somebody else has taken it."""
        log.warning("another process has taken a partition", partition=life.partition)
        life.end()
        task = asyncio.ensure_future(self._let_go(life))
        self._handing.add(task)
        task.add_done_callback(self._handing.discard)

    async def _give_back(self, life: Life, why: str) -> None:
        """End what is begun, give the rest back in its order, and stand in line again."""
        life.closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(QUIET):
                while not life.quiet:  # noqa: ASYNC110 - rare, and short
                    await asyncio.sleep(0.01)
        log.info("giving a partition back", partition=life.partition, why=why, in_hand=len(life.open))
        await self._let_go(life)

    async def _let_go(self, life: Life) -> None:
        life.end()
        if self._lives.get(life.partition) is life:
            del self._lives[life.partition]
            if life.consumer.epoch == life.epoch:
                await life.consumer.release()
