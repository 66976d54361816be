"""Deliveries of a partition → items of their keys' lines. In: a batch, what the database knows. Out: items, in order.

Decoding is the intake's of every subscription. Here come the key, and what became of the event at an earlier time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.codec import Codec, Payload
from pipeline.codec.order_key import MissingKey, key_in_properties, key_of
from pipeline.codec.payload import any_json
from pipeline.errors import ProtocolViolation, UndecodableBody
from pipeline.message import REDRIVES, REPLAY, Delivery
from pipeline.retry import Failure, failure_of
from pipeline.store.transaction import unstorable
from pipeline.topology.model import RetryPolicy, Subscription
from pipeline.worker.intake import Intake
from pipeline.worker.ordered.life import MARKER, Life
from pipeline.worker.ordered.line import Item
from pipeline.worker.ordered.suspects import DEATHS
from pipeline.worker.registry import Handler
from pipeline.worker.work import Failed, Work, inbox_key

DIED = Failure(
    "pipeline.WorkerDied", "its handler was called and did not come back: the process died each time, with it alone"
)
DECIDED = Failure(
    "pipeline.DecidedBefore", "that it is dead was decided by a worker that died after", reason="exhausted"
)


@dataclass(slots=True)
class Placed:
    """A batch with nothing to be handled about `done` and `again`: processed or buried before; to be buried again."""

    lines: list[Item] = field(default_factory=list)
    done: list[Item] = field(default_factory=list)
    again: list[Item] = field(default_factory=list)


class OrderedIntake:
    """The intake stage of one ordered subscription."""

    def __init__(
        self, subscription: Subscription, codec: Codec, handlers: dict[str, Handler], payloads: dict[str, Payload]
    ) -> None:
        self._subscription = subscription
        # Without a ladder: nothing here is ever sent round.
        bare = replace(subscription, retry=RetryPolicy(subscription.retry.attempts, ()))
        self._intake = Intake(bare, codec, handlers, payloads)
        self._codec = codec
        self._any = any_json()

    def items(self, deliveries: Sequence[Delivery]) -> list[Item]:
        """An item for each delivery, in their order."""
        events = [delivery for delivery in deliveries if not _is_marker(delivery)]
        found = self._intake.sort(events)
        works = {work.delivery: work for work in found.works}
        failures = {failed.delivery: failed for failed in found.failed}
        return [self._item(delivery, works.get(delivery), failures.get(delivery)) for delivery in deliveries]

    def _item(self, delivery: Delivery, work: Work | None, failed: Failed | None) -> Item:
        if work is None and failed is None:
            marker = Item(delivery, None, delivery.readable.message_id, None, None)
            marker.marker = True
            return marker
        key: str | None = None
        if work is not None:
            event_id = work.key
            try:
                key = key_of(delivery, work.event, self._subscription.order_by, self._plain)
                if key is None:
                    key = self._without_key(work)
                if unstorable([event_id, key]):
                    raise UndecodableBody("its id or key holds characters that a database can't keep")
            except Exception as error:  # noqa: BLE001 - whatever can't be read of a message is its own fault
                failed, work = Failed(delivery, failure_of(error), work.attempt, event_id, work.event.type), None
        else:
            assert failed is not None
            event_id = _inbox_key(failed)
            key = self._key_of_unreadable(delivery)
        if unstorable([event_id, key or ""]):
            event_id, key = "", None
        item = Item(delivery, key, event_id, work, failed)
        redrives = delivery.readable.headers.get(REDRIVES)
        item.redrives = redrives if isinstance(redrives, int) else 0
        return item

    def place(self, life: Life, items: Sequence[Item], seen: set[str]) -> Placed:
        """Sort the items by what is known of their events, and enter into the life what is to be settled."""
        placed = Placed()
        for item in items:
            row = item.row = life.rows.get(item.event_id) if item.event_id else None
            if item.event_id in seen or (row is not None and self._is_over(item)):
                again = row is not None and item.event_id not in seen and item.delivery.redelivered
                if again:
                    life.add(item)
                (placed.again if again else placed.done).append(item)
                continue
            if row is not None and row.redrives == item.redrives and row.state == "retrying":
                item.attempt = row.attempt + 1
                item.next_at = row.next_at
                if row.attempt >= max(DEATHS, self._subscription.retry.attempts):
                    item.failed = Failed(item.delivery, DIED, row.attempt, item.event_id, _type(item))
            life.add(item)
            if not item.marker:
                placed.lines.append(item)
        return placed

    def _is_over(self, item: Item) -> bool:
        """Whether it is a dead letter already, and this is not its redriven or replayed copy.

        A replayed copy that comes again may be one whose end was decided since; so it counts as over.
        """
        row = item.row
        if row is None or row.state == "retrying" or item.redrives > row.redrives:
            return False
        return item.delivery.redelivered or REPLAY not in item.delivery.readable.headers

    def _without_key(self, work: Work) -> str:
        if self._subscription.on_missing_key == "default":
            return ""
        raise MissingKey(
            f"it has no {self._subscription.order_by}, by which {self._subscription.name} is ordered"
            " (`on_missing_key: reject`)"
        )

    def _plain(self, delivery: Delivery) -> Any:
        return self._codec.decode(delivery, self._any).data

    def _key_of_unreadable(self, delivery: Delivery) -> str | None:
        """The key, as far as the properties tell: what follows it must wait for its end."""
        try:
            return key_in_properties(delivery, self._subscription.order_by)
        except ProtocolViolation:
            return None


def earlier_end(item: Item) -> Failed:
    """Why an event is to be buried again whose end was decided before."""
    if item.failed is not None:
        return item.failed
    row = item.row
    assert row is not None
    failure = DECIDED
    if row.state == "parked":
        failure = Failure("pipeline.Parked", f"key {row.key!r} is parked", reason="parked")
    return Failed(item.delivery, failure, max(1, row.attempt), item.event_id, _type(item))


def _type(item: Item) -> str:
    return item.work.event.type if item.work is not None else ""


def _inbox_key(failed: Failed) -> str:
    try:
        return inbox_key(failed.event_id, failed.delivery) if failed.event_id else ""
    except ProtocolViolation:
        return failed.event_id


def _is_marker(delivery: Delivery) -> bool:
    try:
        return MARKER in delivery.properties.headers
    except ProtocolViolation:
        return False
