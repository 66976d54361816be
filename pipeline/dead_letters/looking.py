"""Look at dead letters without changing anything. In: a subscription and a selection. Out: letters, oldest first."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pipeline.amqp.dead_letter_queue import open_dead_letter_queue
from pipeline.dead_letters.letter import DeadLetter
from pipeline.dead_letters.progress import Progress, Watcher, nobody
from pipeline.dead_letters.reading import read_dead_letter
from pipeline.dead_letters.selection import EVERYTHING, Selection
from pipeline.dead_letters.summary import Summary, Tally
from pipeline.errors import ConfigurationError
from pipeline.message import Delivery
from pipeline.settings import Settings
from pipeline.topology.model import Subscription


def dead_letter_queue(subscription: Subscription) -> str:
    """The name of its dead-letter queue. Raises: ConfigurationError when it has none."""
    if not subscription.dead_letter:
        raise ConfigurationError(
            f"subscription {subscription.name} keeps no dead letters (dead_letter: false in the topology file)"
        )
    return subscription.dead_letter_queue


async def peek(
    settings: Settings,
    subscription: Subscription,
    selection: Selection = EVERYTHING,
    *,
    whole: bool = False,
    watch: Watcher = nobody,
) -> list[DeadLetter]:
    """The selected dead letters, sorted by when they became dead letters, then by id: the same at every look.

    Without `whole` they come without what takes room (body, traceback, history, headers).

    Raises: ConfigurationError, ObjectMissing, ObjectLocked, BrokerError.
    """
    letters: list[DeadLetter] = []
    async for batch in _batches(settings, subscription, watch):
        for delivery in batch:
            letter = read_dead_letter(delivery, subscription, whole=False)
            if selection.matches(letter):
                letters.append(read_dead_letter(delivery, subscription) if whole else letter)
    # The sort is stable: letters alike in both keep the queue's order.
    return sorted(letters, key=lambda letter: letter.order)


async def look_over(settings: Settings, subscription: Subscription, watch: Watcher = nobody) -> Summary:
    """The figures of a whole dead-letter queue, in little memory however many there are.

    Raises: ConfigurationError, ObjectMissing, ObjectLocked, BrokerError.
    """
    tally = Tally()
    async for batch in _batches(settings, subscription, watch):
        for delivery in batch:
            tally.add(read_dead_letter(delivery, subscription, whole=False))
    return tally.summary()


async def _batches(settings: Settings, subscription: Subscription, watch: Watcher) -> AsyncIterator[list[Delivery]]:
    seen = 0
    async with open_dead_letter_queue(settings, dead_letter_queue(subscription)) as queue, queue.hold() as hold:
        async for batch in hold.batches(queue.count):
            yield batch
            seen += len(batch)
            watch(Progress(seen, queue.count, seen))
