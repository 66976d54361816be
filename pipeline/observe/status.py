"""Where one event is, for each subscription that takes its type. In: an id and a type. Out: `SubscriptionStatus`es.

From the subscription's database: its inbox row says processed; else the note of its last failure says retrying or dead;
else it waits: in its queue, in a worker's hands, or not published yet. What the database can't know is a dead letter
that the broker itself made, of a message that killed its worker time and again: it knows that of the last try. `deep`
looks for it in the dead-letter queue, message by message, and so only while that is short.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, Self, TypeAlias

from pipeline.amqp.dead_letter_queue import open_dead_letter_queue
from pipeline.errors import BrokerError, StoreError
from pipeline.observe.stores import Stores
from pipeline.settings import Settings
from pipeline.store.failures import WORKER_DIED
from pipeline.topology.model import Subscription, Topology

State: TypeAlias = Literal["waiting", "processed", "retrying", "dead", "discarded", "unknown"]

SHORT = 1000  # dead letters that `deep` looks through at most
PATIENCE = 5.0  # s for one subscription's database to answer
DELIVERY_LIMIT = "delivery_limit"


@dataclass(frozen=True, slots=True)
class SubscriptionStatus:
    """Where an event is for one subscription. Times are aware, UTC.

    `unknown`: the subscription's database does not answer, `error` says why. `attempt` is that of the last failure, 0
    when there is none to tell of; `next_at` is of a retry; `reason` of a dead letter (exhausted, rejected, …), also of
    one that `pipeline dlq discard` removed (`discarded`), and `worker_died` while such a message is handled again; `at`
    is when it was processed, failed or was discarded.
    """

    subscription: str
    state: State
    attempt: int = 0
    next_at: datetime | None = None
    reason: str = ""
    error: str = ""
    at: datetime | None = None


class EventStatuses:
    """Asks the subscriptions' databases. Made by `open`."""

    def __init__(self, settings: Settings, topology: Topology) -> None:
        self._settings = settings
        self._topology = topology
        self._stores = Stores(settings)

    @classmethod
    def open(cls, settings: Settings, topology: Topology) -> Self:
        """Connects to each database when it is first asked for."""
        return cls(settings, topology)

    async def of(self, event_id: str, event_type: str, deep: bool = False) -> list[SubscriptionStatus]:
        """One for each subscription that takes the type, in the order of the topology; asked all at once.

        With `deep` what waits is looked for in the dead-letter queue too, where that holds no more than 1000 messages.
        """
        taking = [each for each in self._topology.subscriptions.values() if event_type in each.events]
        return list(await asyncio.gather(*(self._status(each, event_id, deep) for each in taking)))

    async def result(self, subscription: str, event_id: str) -> bytes | None:
        """The JSON that the handler returned. None when the event is not processed, or its handler returned no such
        value but rows of its own tables (or nothing): `of` tells which.

        Raises: StoreUnavailable.
        """
        store = await self._stores.of(subscription)
        return await store.result(event_id)

    async def close(self) -> None:
        """Close the databases."""
        await self._stores.close()

    async def _status(self, subscription: Subscription, event_id: str, deep: bool) -> SubscriptionStatus:
        name = subscription.name
        try:
            async with asyncio.timeout(PATIENCE):
                found = await self._in_database(name, event_id)
        except TimeoutError:
            return SubscriptionStatus(name, "unknown", error=f"its database did not answer within {PATIENCE:g} s")
        except StoreError as error:
            return SubscriptionStatus(name, "unknown", error=str(error))
        suspected = found.state == "retrying" and found.reason == WORKER_DIED
        if deep and (found.state == "waiting" or suspected) and subscription.dead_letter:
            try:
                if await self._is_dead_letter(subscription, event_id):
                    return SubscriptionStatus(name, "dead", reason=DELIVERY_LIMIT, error="it killed its worker")
            except BrokerError as error:
                return replace(found, error=f"its dead-letter queue was not looked into: {error}")
        return found

    async def _in_database(self, subscription: str, event_id: str) -> SubscriptionStatus:
        store = await self._stores.of(subscription)
        if (at := await store.processed(event_id)) is not None:
            return SubscriptionStatus(subscription, "processed", at=at)
        note = (await store.failures([event_id])).get(event_id)
        if note is not None:
            known = (note.attempt, note.next_at, note.reason, note.error, note.at)
            return SubscriptionStatus(subscription, note.state, *known)
        return SubscriptionStatus(subscription, "waiting")

    async def _is_dead_letter(self, subscription: Subscription, event_id: str) -> bool:
        async with open_dead_letter_queue(self._settings, subscription.dead_letter_queue) as letters:
            if not 0 < letters.count <= SHORT:
                return False
            async with letters.hold() as hold:
                async for batch in hold.batches(letters.count):
                    if any(letter.readable.message_id == event_id for letter in batch):
                        return True
        return False
