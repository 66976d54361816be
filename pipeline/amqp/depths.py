"""How many messages are ready in queues, asked of the broker itself. In: queue names. Out: counts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiormq.abc import AbstractChannel

from pipeline.amqp.connection import CLIENT_ERRORS
from pipeline.amqp.session import Session

ANSWER_DEADLINE = 10.0  # seconds


class Depths:
    """Asks over one channel, kept open between questions."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._channel: AbstractChannel | None = None

    async def ready(self, queues: Iterable[str]) -> dict[str, int]:
        """Ready messages by queue; those in consumers' hands are not among them.

        Raises: BrokerError (ObjectMissing for a queue that is not declared).
        """
        lane = await self._session.lane()
        try:
            async with asyncio.timeout(ANSWER_DEADLINE):
                if self._channel is None or self._channel.is_closed:
                    self._channel = await lane.plain_channel()
                counts = {}
                for queue in queues:
                    answer = await self._channel.queue_declare(queue, passive=True)
                    counts[queue] = answer.message_count or 0
                return counts
        except CLIENT_ERRORS as error:
            self._channel = None
            raise lane.explain(error) from error
