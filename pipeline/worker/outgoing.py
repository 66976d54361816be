"""Follow-up events: committed with the results, published right after. In: rows of the outbox table. Out: confirms.

What this process just committed goes out from memory; what a process that died left behind is found in the table.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial

from pipeline.amqp.publisher import Publisher
from pipeline.log import get_logger
from pipeline.message import Message
from pipeline.store.patience import patiently
from pipeline.store.store import Store
from pipeline.store.writes import Outgoing

log = get_logger("outgoing")

BATCH = 1000  # events a publish, at most
SWEEP = 5.0  # seconds between looks for what a dead process left behind
ORPHANED = 5.0  # seconds a row must be old to count as left behind; a living process takes milliseconds
RETRY = 1.0  # seconds before unconfirmed events are tried again


class OutgoingRelay:
    """Publishes the follow-up events of one subscription's database.

    An event that can't be published (nobody takes its type, its queue is full) does not hold up the others: its row
    stays, and it is tried again until it goes.
    """

    def __init__(self, store: Store, publisher: Publisher, subscription: str) -> None:
        self._store = store
        self._publisher = publisher
        self._subscription = subscription
        self._waiting: list[Outgoing] = []
        self._again: list[Outgoing] = []  # were not confirmed
        self._busy = False
        self._wake = asyncio.Event()

    @property
    def idle(self) -> bool:
        """Nothing of this process waits to go out."""
        return not self._waiting and not self._again and not self._busy

    def add(self, outgoing: list[Outgoing]) -> None:
        """Publish these; their rows are committed."""
        self._waiting += outgoing
        self._wake.set()

    async def run(self) -> None:
        """Relay for ever."""
        await self._sweep()
        swept = time.monotonic()
        while True:
            try:
                async with asyncio.timeout(RETRY if self._again else SWEEP):
                    await self._wake.wait()
            except TimeoutError:
                self._waiting += self._again
                self._again = []
            self._wake.clear()
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                self._busy = True
                try:
                    self._again += await self._publish(batch)
                finally:
                    self._busy = False
            if time.monotonic() - swept > SWEEP:
                swept = time.monotonic()
                await self._sweep()

    async def _publish(self, batch: list[Outgoing]) -> list[Outgoing]:
        """Publish once and forget what is confirmed; what is not."""
        errors = await self._publisher.send(
            [Message(each.exchange, each.routing_key, each.body, each.properties, each.message_id) for each in batch]
        )
        done = [each.key for index, each in enumerate(batch) if index not in errors]
        if done:
            await patiently(self._subscription, partial(self._store.forget_outgoing, done))
        if errors:
            log.warning(
                "follow-up events not confirmed, trying again",
                subscription=self._subscription,
                n=len(errors),
                error=str(next(iter(errors.values()))),
            )
        return [batch[index] for index in errors]

    async def is_empty(self) -> bool:
        """Nobody's follow-up events wait in the table, not those of a process that died either."""
        return not await patiently(self._subscription, lambda: self._store.outgoing(1))

    async def _sweep(self) -> None:
        """Publish rows that are too old to be in a living process's hands, and are not in ours."""
        ours = {each.key for each in self._again}
        rows = await patiently(self._subscription, lambda: self._store.outgoing(BATCH, ORPHANED))
        found = [each for each in rows if each.key not in ours]
        if found:
            log.info("publishing follow-up events left behind", subscription=self._subscription, n=len(found))
            self.add(found)
