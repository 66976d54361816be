"""Send dead letters back to their work queue. In: a subscription and a selection. Out: `Report`.

take ─► choose ─► copy to the work queue ─► confirmed ─► remove (ack)

A letter leaves its queue only after the broker confirmed its copy. Interrupted at any moment, each letter is therefore
in the dead-letter queue, in the work queue, or (copied, not yet removed) in both; the inbox drops the second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from pipeline.amqp.dead_letter_hold import Hold
from pipeline.amqp.dead_letter_queue import DeadLetterQueue, open_dead_letter_queue
from pipeline.dead_letters.choosing import Choice
from pipeline.dead_letters.ends import Ends
from pipeline.dead_letters.fresh_copy import fresh_copy
from pipeline.dead_letters.looking import dead_letter_queue
from pipeline.dead_letters.progress import Report, Watcher, nobody
from pipeline.dead_letters.selection import Selection
from pipeline.errors import ConfigurationError, Nacked, ObjectMissing, PublishError, Unroutable
from pipeline.event import utc_now
from pipeline.message import Delivery
from pipeline.settings import Settings
from pipeline.topology.model import Subscription
from pipeline.topology.partitions import work_queues

WINDOW = 500  # copies on their way at once: also how many may be doubled by an interruption
STEPS_PER_SECOND = 10  # with a rate: how finely a second is divided
# A slow redrive gives back what it holds every so often (s): RabbitMQ closes the channel of whoever holds a message
# for longer than its consumer_timeout, 30 minutes unless set otherwise.
HOLD_LIMIT = 600.0


async def redrive(
    settings: Settings,
    subscription: Subscription,
    selection: Selection,
    *,
    rate: float | None = None,
    dry_run: bool = False,
    watch: Watcher = nobody,
) -> Report:
    """Move the selected dead letters to the subscription's work queue, each with a whole retry budget again.

    Only letters that are there at the start are moved, in the queue's order, at most `rate` a second. One that fails
    again meanwhile is not moved again. A `dry_run` changes nothing.

    Raises: ConfigurationError, ObjectMissing (either queue), ObjectLocked, BrokerError, PublishError. Whatever is
    raised, nothing is lost.
    """
    if rate is not None and not rate > 0:
        raise ConfigurationError(f"the rate is {rate:g}; it must be above 0 (events per second)")
    async with open_dead_letter_queue(settings, dead_letter_queue(subscription)) as queue:
        for name in work_queues(subscription):
            await queue.require(name)
        choice = Choice(subscription, selection, queue.count, watch)
        async with Ends(settings, subscription) as ends:
            mover = _Mover(queue, subscription, choice, _Pace(rate), ends, dry_run)
            to_look_at = queue.count
            while to_look_at:
                async with queue.hold() as hold:
                    to_look_at = await mover.work_through(hold, to_look_at)
        return choice.report(dry_run)


class _Mover:
    """Works through a held queue."""

    def __init__(
        self,
        queue: DeadLetterQueue,
        subscription: Subscription,
        choice: Choice,
        pace: _Pace,
        ends: Ends,
        dry_run: bool,
    ) -> None:
        self._queue = queue
        self._subscription = subscription
        self._choice = choice
        self._pace = pace
        self._ends = ends
        self._dry_run = dry_run

    async def work_through(self, hold: Hold, most: int) -> int:
        """Redrive among the first `most` letters; how many of them to look at again, 0 when all are dealt with.

        When the time is up it goes on taking without moving: a part of the queue given back would change its order.
        """
        taken = moved = 0
        complete = True
        async for batch in hold.batches(most):
            taken += len(batch)
            if not complete:
                continue
            chosen = self._choice.among(batch)
            self._choice.count(seen=len(batch) - len(chosen))
            for start in range(0, len(chosen), self._pace.step):
                if time.monotonic() - hold.since > HOLD_LIMIT:
                    complete = False
                    break
                part = chosen[start : start + self._pace.step]
                if self._dry_run:
                    self._choice.count(seen=len(part), chosen=len(part))
                else:
                    await self._move(hold, part)
                    moved += len(part)
        if complete:
            return 0
        self._choice.seen = self._choice.done
        return taken - moved

    async def _move(self, hold: Hold, part: Sequence[Delivery]) -> None:
        await self._pace.wait(len(part))
        now = utc_now()
        errors = await self._queue.copy([fresh_copy(delivery, self._subscription, now) for delivery in part])
        moved = [delivery for index, delivery in enumerate(part) if index not in errors]
        hold.remove(moved)
        await self._ends.redriven([delivery.readable.message_id for delivery in moved], now)
        self._choice.count(seen=len(part), chosen=len(part), done=len(part) - len(errors))
        if errors:
            raise self._explained(next(iter(errors.values())))

    def _explained(self, error: PublishError) -> Exception:
        work_queue = self._subscription.queue
        match error:
            case Unroutable():
                return ObjectMissing(f"work queue {work_queue} is gone; `pipeline topology apply` declares it")
            case Nacked():
                return Nacked(f"work queue {work_queue} takes no more (is it full?): {error}", error.event_id)
            case _:
                return error


class _Pace:
    """Lets letters go no faster than `rate` a second. `step` is how many go at once."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._due = 0.0
        self.step = WINDOW if rate is None else max(1, min(WINDOW, int(rate / STEPS_PER_SECOND)))

    async def wait(self, letters: int) -> None:
        if self._rate is None:
            return
        now = time.monotonic()
        self._due = max(self._due, now)
        if self._due > now:
            await asyncio.sleep(self._due - now)
        self._due += letters / self._rate
