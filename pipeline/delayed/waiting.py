"""One message that waits, as a value. Pure. In: a delivery from the ladder, however odd. Out: never an exception."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.codec.envelope import attribute
from pipeline.message import DELAY_BACK_TO, DELAY_DUE, DELAY_TO, Delivery
from pipeline.topology.delay import UNDELIVERABLE

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event or a retry that waits until `due` (aware, UTC; None when the message does not say).

    `to` is the exchange it is published to then; of a retry (`is_retry`) the subscription that tries it again. Text
    comes from the message as it is: escape it before printing. `size` is the body's in bytes. What is `undeliverable`
    was due, and nobody took it.
    """

    id: str
    type: str
    due: datetime | None
    to: str
    is_retry: bool
    routing_key: str
    size: int
    undeliverable: bool = False

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "id": self.id,
            "type": self.type,
            "due": self.due.isoformat() if self.due else None,
            "to": self.to,
            "kind": "retry" if self.is_retry else "event",
            "undeliverable": self.undeliverable,
            "routing_key": self.routing_key,
            "size": self.size,
        }


def read_waiting(delivery: Delivery, queue: str = "") -> Waiting:
    """What the message says of itself."""
    properties = delivery.readable
    headers = properties.headers
    back = headers.get(DELAY_BACK_TO)
    return Waiting(
        properties.message_id or attribute(properties, "id") or "",
        properties.type or attribute(properties, "type") or "",
        _moment(headers.get(DELAY_DUE)),
        str(back if back is not None else headers.get(DELAY_TO, "")),
        back is not None,
        delivery.routing_key,
        len(delivery.body),
        queue == UNDELIVERABLE,
    )


def _moment(due: object) -> datetime | None:
    if not isinstance(due, int):
        return None
    try:
        return _EPOCH + timedelta(microseconds=due)
    except OverflowError:
        return None
