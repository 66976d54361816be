"""Copies, confirmed, in order, at a rate. In: messages. Out: nothing, once the broker has every one.

What is not confirmed is sent again together with all that came behind it, so that the order holds; what was there
already is then there twice, and the inbox drops the second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from pipeline.amqp.publisher import Publisher
from pipeline.errors import Nacked, ObjectMissing, PublishError, Unroutable
from pipeline.log import get_logger
from pipeline.message import Message

log = get_logger("event_log")

WINDOW = 500  # copies on their way at once
STEPS_PER_SECOND = 10  # with a rate: how finely a second is divided
PATIENCE = 60.0  # seconds without any confirm before it is given up
AGAIN = 0.5  # seconds between two tries


class Sender:
    """Sends copies to one subscription, at most `rate` a second. `step` is how many go at once."""

    def __init__(self, publisher: Publisher, subscription: str, rate: float | None = None) -> None:
        self._publisher = publisher
        self._subscription = subscription
        self._rate = rate
        self._due = 0.0
        self.step = WINDOW if rate is None else max(1, min(WINDOW, int(rate / STEPS_PER_SECOND)))

    @property
    def limit(self) -> int:
        """Bytes of encoded properties a copy may have."""
        return self._publisher.properties_limit

    async def send(self, copies: Sequence[Message]) -> None:
        """Send these. Raises: ObjectMissing, Nacked, PublishError when the broker won't take them for too long."""
        await self._pace(len(copies))
        left = list(copies)
        since = time.monotonic()
        while left:
            errors = await self._publisher.send(left)
            if not errors:
                return
            first = min(errors)
            error = errors[first]
            if first:
                since = time.monotonic()
            left = left[first:]
            if isinstance(error, Unroutable) or time.monotonic() - since > PATIENCE:
                raise self._explained(error)
            log.warning("copies not confirmed, trying again", subscription=self._subscription, error=str(error))
            await asyncio.sleep(AGAIN)

    async def _pace(self, copies: int) -> None:
        if self._rate is None:
            return
        now = time.monotonic()
        self._due = max(self._due, now)
        if self._due > now:
            await asyncio.sleep(self._due - now)
        self._due += copies / self._rate

    def _explained(self, error: PublishError) -> Exception:
        name = self._subscription
        match error:
            case Unroutable():
                return ObjectMissing(f"the queues of {name} are not there; `pipeline topology apply` declares them")
            case Nacked():
                return Nacked(f"the queue of {name} takes no more (is it full, does a worker run?): {error}")
            case _:
                return error
