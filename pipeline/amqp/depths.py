"""How many messages are ready in queues, asked of the broker itself. In: queue names. Out: counts."""

from __future__ import annotations

from collections.abc import Iterable

from aiormq.abc import AbstractChannel

from pipeline.amqp.session import Session
from pipeline.errors import BrokerError


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
            if self._channel is None or self._channel.is_closed:
                self._channel = await lane.ask(lane.plain_channel())
            counts = {}
            for queue in queues:
                answer = await lane.ask(self._channel.queue_declare(queue, passive=True))
                counts[queue] = answer.message_count or 0
            return counts
        except BrokerError:
            self._channel = None
            raise
