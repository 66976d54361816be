"""When nothing is left to do. In: workers, their queues. Out: it returns once all are empty, and nothing is in hand.

AMQP's word is of the present, but it is not enough. RabbitMQ answers with zeros for a queue without a leader; ours has
at least one consumer, us, when the answer is real. And messages that have waited in a retry queue are not counted while
they are on their way out of it, which is long when their queue could not take them: of those only the management API
knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain
from typing import Protocol

from pipeline.amqp.management import Management
from pipeline.amqp.queue_length import QueueLengths
from pipeline.amqp.session import Session
from pipeline.errors import BrokerError
from pipeline.log import get_logger
from pipeline.settings import Settings

log = get_logger("process")

CHECK = 0.25  # seconds between looks
CHECKS = 4  # looks in a row that must find nothing: a message on its way between two queues is in neither
# While nodes are away: what the management API says is up to 5 s old, and a copy may have been refused since.
MAIMED_CHECKS = 24
UNSURE_CHECKS = 40  # when the management API can't be asked


class Finishing(Protocol):
    """A worker, as far as this is concerned."""

    @property
    def idle(self) -> bool:
        """Nothing in hand."""

    @property
    def consumed(self) -> list[str]:
        """The queues it consumes, or will."""

    @property
    def waited_for(self) -> list[str]:
        """The queues whose messages come back to it by themselves."""

    async def nothing_left(self) -> bool:
        """Nothing in hand, nor in its database to go out."""


async def until_empty(settings: Settings, session: Session, workers: Sequence[Finishing]) -> None:
    """Wait until work and retry queues are empty and no worker has anything in hand."""
    lengths = QueueLengths(session)
    quiet = 0
    while True:
        await asyncio.sleep(CHECK)
        quiet = quiet + 1 if await _quiet(lengths, workers) else 0
        if quiet < CHECKS:
            continue
        try:
            held, whole = await _on_their_way(settings, workers)
            if not held and quiet >= (CHECKS if whole else MAIMED_CHECKS):
                return
            if held:
                quiet = 0
        except BrokerError as error:
            if quiet >= UNSURE_CHECKS:
                log.warning("retries on their way back could not be counted without the management API", why=str(error))
                return


async def _quiet(lengths: QueueLengths, workers: Sequence[Finishing]) -> bool:
    if not all(worker.idle for worker in workers):
        return False
    try:
        consumed = await lengths.ask(chain.from_iterable(worker.consumed for worker in workers))
        waiting = await lengths.ask(chain.from_iterable(worker.waited_for for worker in workers))
    except BrokerError:
        return False
    empty = all(consumers and not ready for ready, consumers in consumed.values())
    if not empty or any(ready for ready, _ in waiting.values()):
        return False
    return all([await worker.nothing_left() for worker in workers])


async def _on_their_way(settings: Settings, workers: Sequence[Finishing]) -> tuple[bool, bool]:
    """Whether retries wait, or nobody knows; and whether all members of their queues are there. Raises: BrokerError."""
    names = list(chain.from_iterable(worker.waited_for for worker in workers))
    if not names:
        return False, True
    async with Management(settings) as management:
        found = (await management.held(names)).values()
    return any(messages != 0 for messages, _ in found), all(whole for _, whole in found)
