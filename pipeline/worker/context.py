"""What a handler may ask and tell beside its event. In: the delivery's facts. Out: follow-up events it published."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pipeline.codec.delay import due_time
from pipeline.log import Logger, get_logger


@dataclass(frozen=True, slots=True)
class Publish:
    """A follow-up event: committed together with the results, published right after.

    Its id is derived from the handled event's id, the subscription and the order of follow-ups, so that a repeated
    handling publishes the same event; give `id` to name it yourself. With `after` or `at` it arrives then, not before
    (needs `delay:` in the topology).
    """

    type: str
    data: Any
    subject: str | None = None
    id: str | None = None
    time: datetime | None = None
    after: float | timedelta | None = None  # seconds or a timedelta, counted from when this is made
    at: datetime | None = None
    due: datetime | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        # Here, so that a wrong delay fails where it stands, and the handler's own time does not add to it.
        object.__setattr__(self, "due", due_time(self.after, self.at))


@dataclass(frozen=True, slots=True)
class Result:
    """What the handler tells of this event, beside rows and follow-up events: any JSON-able value.

    Kept under the event's id, where the gateway and `pipeline` find it. One for an event.
    """

    value: Any


class Context:
    """Facts of the delivery in hand.

    `attempt` counts from 1. For a batch handler `event_id` is "" and `attempt` that of the first event.
    """

    __slots__ = ("_query", "attempt", "event_id", "follow_ups", "subscription")

    def __init__(
        self, subscription: str, event_id: str, attempt: int, query: Callable[[Any], Awaitable[list[Any]]]
    ) -> None:
        self.subscription = subscription
        self.event_id = event_id
        self.attempt = attempt
        self.follow_ups: list[Publish] | None = None
        self._query = query

    @property
    def log(self) -> Logger:
        """A structured logger that names the subscription, the event and the attempt."""
        return get_logger(self.subscription).bind(event_id=self.event_id, attempt=self.attempt)

    async def query(self, statement: Any) -> list[Any]:
        """The rows of a SELECT on the subscription's database, as last committed."""
        return await self._query(statement)

    def publish(self, type: str, data: Any, **attributes: Any) -> None:
        """The same as returning a `Publish`: goes out if, and only if, this event's results are committed."""
        if self.follow_ups is None:
            self.follow_ups = []
        self.follow_ups.append(Publish(type, data, **attributes))
