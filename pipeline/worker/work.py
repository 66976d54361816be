"""One delivery on its way through the stages, and how it ended."""

from __future__ import annotations

from pipeline.event import AnyEvent
from pipeline.message import FORCED, REPLAY, Delivery
from pipeline.retry import Failure
from pipeline.store.writes import Effects
from pipeline.worker.registry import Handler


class Work:
    """A decoded delivery and its handler. Not a dataclass: one is made per event."""

    __slots__ = ("attempt", "delivery", "event", "handler", "key")

    def __init__(self, delivery: Delivery, event: AnyEvent, handler: Handler, attempt: int, key: str = "") -> None:
        self.delivery = delivery
        self.event = event
        self.handler = handler
        self.attempt = attempt
        self.key = key or event.id  # in the inbox


class Handled:
    """The handler returned; `effects` wait for their commit."""

    __slots__ = ("effects", "work")

    def __init__(self, work: Work, effects: Effects) -> None:
        self.work = work
        self.effects = effects


class Failed:
    """The delivery can't be processed now (or ever). `event_id` and `event_type` are "" when they can't be read."""

    __slots__ = ("attempt", "delivery", "event_id", "event_type", "failure")

    def __init__(self, delivery: Delivery, failure: Failure, attempt: int, event_id: str = "", event_type: str = ""):
        self.delivery = delivery
        self.failure = failure
        self.attempt = attempt
        self.event_id = event_id
        self.event_type = event_type


def inbox_key(event_id: str, delivery: Delivery) -> str:
    """What makes this delivery the same as an earlier one: the event's id, and in a forced replay the replay's too."""
    headers = delivery.properties.headers
    if FORCED in headers and headers[FORCED] is True and isinstance(replay := headers.get(REPLAY), str):
        return f"{event_id}#replay-{replay}"
    return event_id
