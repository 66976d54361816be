"""The keys that ordered subscriptions go by. In: an event's attributes and its data as JSON. Out: key texts, headers.

A key is text: numbers and truth values as JSON writes them. The publisher puts the key of each path into the data into
a header, where the worker reads it, or works it out again for messages of others; and the slots of all keys, by which
the broker routes, into another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydantic_core import from_json

from pipeline.codec.envelope import attribute, event_type
from pipeline.errors import InvalidPayload
from pipeline.event import AnyEvent
from pipeline.field_table import table_field
from pipeline.message import ROUTES, Delivery
from pipeline.topology.model import Subscription
from pipeline.topology.partitions import DATA, key_header
from pipeline.topology.slots import route_of

LONGEST_KEY = 255  # bytes; keys name rows, and stand in logs


class MissingKey(InvalidPayload):
    """The event has no key for a subscription that is ordered by one and takes none without."""


def key_text(value: Any) -> str | None:
    """A JSON value as a key; None when it can't be one."""
    match value:
        case str():
            text = value
        case bool():
            text = "true" if value else "false"
        case int() | float():
            text = repr(value)
        case _:
            return None
    return text if 0 < len(text.encode("utf-8", "replace")) <= LONGEST_KEY else None


def key_in(data: Any, order_by: str) -> str | None:
    """The key at a path such as `data.sku.id`; None when nothing fit is there."""
    for name in order_by.removeprefix(DATA).split("."):
        if not isinstance(data, dict) or name not in data:
            return None
        data = data[name]
    return key_text(data)


class KeyWriter:
    """Writes the keys and slots of one event type; `takers` are the ordered subscriptions that take it."""

    def __init__(self, event_type: str, takers: Sequence[Subscription]) -> None:
        self._event_type = event_type
        self._attributes = [each for each in takers if each.order_by in ("subject", "source")]
        paths: dict[str, list[Subscription]] = {}
        for each in takers:
            if each.order_by.startswith(DATA):
                paths.setdefault(each.order_by, []).append(each)
        self._paths = paths
        self._types = [route_of("type", event_type)] if any(each.order_by == "type" for each in takers) else []
        self._names = tuple(dict.fromkeys(each.order_by for each in self._attributes))

    def __bool__(self) -> bool:
        return bool(self._paths or self._names or self._types)

    def headers(self, event: AnyEvent, body: bytes) -> bytes:
        """The headers, as encoded fields. Raises: MissingKey."""
        for each in self._attributes:
            if not getattr(event, each.order_by):
                self._missing(event, each)
        routes = [*self._types, *(route_of(name, getattr(event, name) or "") for name in self._names)]
        fields = []
        data = from_json(body) if self._paths else None
        for path, takers in self._paths.items():
            key = key_in(data, path)
            if key is None:
                for each in takers:
                    self._missing(event, each)
            fields.append(table_field(key_header(path), key or ""))
            routes.append(route_of(path, key or ""))
        return b"".join((*fields, table_field(ROUTES, routes)))

    def _missing(self, event: AnyEvent, subscription: Subscription) -> None:
        if subscription.on_missing_key == "default":
            return
        raise MissingKey(
            f"event {event.id} of type {self._event_type!r} has no {subscription.order_by}, by which subscription"
            f" {subscription.name!r} is ordered; it must be text, a number, true or false, of at most {LONGEST_KEY}"
            " bytes. Give it one, or let the subscription take events without (`on_missing_key: default`)"
        )


def key_in_properties(delivery: Delivery, order_by: str) -> str | None:
    """The key as far as the properties tell; None when they don't. Raises: ProtocolViolation."""
    if order_by == "type":
        return event_type(delivery)
    if order_by in ("subject", "source"):
        return key_text(attribute(delivery.properties, order_by))
    return key_text(delivery.properties.headers.get(key_header(order_by)))


def key_of(delivery: Delivery, event: AnyEvent, order_by: str, plain_data: Callable[[Delivery], Any]) -> str | None:
    """The key of what arrived: the one the publisher wrote, else the one in the event; None when there is none.

    `plain_data` reads a delivery's data as JSON, without the model that the event's may have become.
    """
    if order_by == "type":
        return event.type
    if order_by in ("subject", "source"):
        return key_text(getattr(event, order_by))
    header = delivery.properties.headers.get(key_header(order_by))
    return key_text(header) if header is not None else key_in(plain_data(delivery), order_by)
