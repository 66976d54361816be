"""Events for tests of the producer's store. In: ids. Out: events as the gateway hands them over."""

from __future__ import annotations

from datetime import UTC, datetime

from pipeline.message import Message
from pipeline.properties import Properties, encode_properties
from pipeline.store.producer import NewEvent

TIME = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def event(id: str, payload: bytes = b'{"order_id": 1}', type: str = "order.created", body: bytes = b"") -> NewEvent:
    """An event that goes to exchange "events" with its type for a routing key."""
    properties = encode_properties(Properties(message_id=id if id.isascii() and len(id) < 256 else "odd", type=type))
    return NewEvent(id, type, "/test", None, TIME, payload, Message("events", type, body or payload, properties, id))


def numbered(count: int, prefix: str = "e", type: str = "order.created") -> list[NewEvent]:
    """So many, all different, in the order of their ids."""
    return [event(f"{prefix}{number:06d}", b'{"n": %d}' % number, type) for number in range(count)]
