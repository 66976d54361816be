"""Deliveries → work. In: a batch from the consumer. Out: `Work` to handle, `Failed` to settle, duplicates to ack.

Undecodable bytes, an unknown type and a missing handler are outcomes like any other: dead letters with that reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipeline.codec import Codec, Payload
from pipeline.codec.envelope import event_type
from pipeline.errors import ProtocolViolation, UndecodableBody
from pipeline.message import ATTEMPT, FORCED, NOT_BEFORE, Delivery
from pipeline.retry import NoHandler, failure_of
from pipeline.topology.model import Subscription
from pipeline.worker.registry import Handler
from pipeline.worker.work import Failed, Work, inbox_key

EARLY_BY = 50  # milliseconds: broker's and worker's clocks may differ this much before a message counts as early
LONGEST_WAIT = 367 * 86_400_000  # milliseconds: no `Retry(after=...)` asks for more; what does was not written by us


@dataclass(slots=True)
class Sorted:
    """A batch, sorted by what is to happen with each delivery."""

    works: list[Work] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    early: list[tuple[Delivery, float]] = field(default_factory=list)  # with the seconds it has to wait still


class Intake:
    """Decodes the deliveries of one subscription."""

    def __init__(
        self,
        subscription: Subscription,
        codec: Codec,
        handlers: dict[str, Handler],
        payloads: dict[str, Payload],
    ) -> None:
        self._subscription = subscription.name
        self._ladder = bool(subscription.retry.delays)  # without one nothing can be sent round again
        self._codec = codec
        self._handlers = handlers
        self._payloads = payloads

    def sort(self, deliveries: Sequence[Delivery]) -> Sorted:
        """Decode each delivery."""
        found = Sorted()
        now = datetime.now(UTC).timestamp() * 1000
        for delivery in deliveries:
            try:
                headers = delivery.properties.headers
            except ProtocolViolation as error:
                failure = failure_of(UndecodableBody(str(error)))
                known = delivery.readable
                found.failed.append(Failed(delivery, failure, 1, known.message_id, known.type))
                continue
            attempt = headers.get(ATTEMPT, 1)
            if not isinstance(attempt, int) or attempt < 1:
                attempt = 1
            not_before = headers.get(NOT_BEFORE)
            if self._ladder and isinstance(not_before, int) and EARLY_BY < not_before - now < LONGEST_WAIT:
                found.early.append((delivery, (not_before - now) / 1000))
                continue
            name = event_type(delivery)
            try:
                handler = self._handlers.get(name)
                if handler is None:
                    self._codec.payload(name)  # unknown to the topology is another fault than not handled here
                    raise NoHandler(f"the worker of {self._subscription!r} has no handler for {name!r}")
                event = self._codec.decode(delivery, self._payloads[name])
            except Exception as error:  # noqa: BLE001 - a model's own validators may raise anything
                found.failed.append(Failed(delivery, failure_of(error), attempt, delivery.properties.message_id, name))
                continue
            key = inbox_key(event.id, delivery) if FORCED in headers else ""
            found.works.append(Work(delivery, event, handler, attempt, key))
        return found
