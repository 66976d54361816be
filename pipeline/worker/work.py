"""One delivery on its way through the stages, and how it ended."""

from __future__ import annotations

from pipeline.event import AnyEvent
from pipeline.message import Delivery
from pipeline.retry import Failure
from pipeline.store.writes import Effects
from pipeline.worker.registry import Handler


class Work:
    """A decoded delivery and its handler. Not a dataclass: one is made per event."""

    __slots__ = ("attempt", "delivery", "event", "handler")

    def __init__(self, delivery: Delivery, event: AnyEvent, handler: Handler, attempt: int) -> None:
        self.delivery = delivery
        self.event = event
        self.handler = handler
        self.attempt = attempt


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
