"""CloudEvents 1.0 attributes ↔ AMQP properties. In: an event, or a delivery. Out: property bytes, or attributes.

`id` and `type` are AMQP's message id and type, `datacontenttype` its content type, `time` its timestamp (whole
seconds) and, exact, a header; the rest are headers `cloudEvents_<attribute>`: the prefix of the CloudEvents AMQP
binding, section 3.1.3, which prefers the underscore. From other programs `cloudEvents:<attribute>` is read as well.
"""

from __future__ import annotations

from datetime import UTC, datetime
from struct import Struct

from pipeline.errors import InvalidPayload, MissingId, UndecodableBody
from pipeline.event import AnyEvent
from pipeline.field_table import short_string, table_field
from pipeline.message import ROUTING_KEY, Delivery
from pipeline.properties import (
    CONTENT_ENCODING,
    CONTENT_TYPE,
    DELIVERY_MODE,
    HEADERS,
    MESSAGE_ID,
    PERSISTENT,
    TIMESTAMP,
    TYPE,
    Properties,
)

PREFIX = "cloudEvents_"
OTHER_PREFIX = "cloudEvents:"
JSON = "application/json"
STRUCTURED = "application/cloudevents+json"
ATTRIBUTES = frozenset({"id", "type", "source", "time", "subject", "dataschema", "datacontenttype", "specversion"})
HEADERS_OF_ATTRIBUTES = frozenset(prefix + name for prefix in (PREFIX, OTHER_PREFIX) for name in ATTRIBUTES)
LONGEST_ID = 255  # bytes, as many as an AMQP message id may have
YEAR_2106 = 2**32  # seconds since the epoch; a timestamp above it is in milliseconds, as some programs write it

_u16 = Struct(">H")
_u32 = Struct(">I")
_u64 = Struct(">Q")
_FLAGS = CONTENT_TYPE | HEADERS | DELIVERY_MODE | MESSAGE_ID | TIMESTAMP | TYPE
_PLAIN = _u16.pack(_FLAGS)
_ENCODED = _u16.pack(_FLAGS | CONTENT_ENCODING)
_VERSION = table_field(f"{PREFIX}specversion", "1.0")
_TIME = short_string(f"{PREFIX}time") + b"S"


class EnvelopeWriter:
    """Writes the properties of one event type; what is the same for every event is encoded once."""

    def __init__(self, event_type: str) -> None:
        self._type = short_string(event_type)
        self._sources: dict[str, bytes] = {}
        self._content_types = {JSON: short_string(JSON)}

    def write(self, event: AnyEvent, encoding: str = "", more: bytes = b"") -> bytes:
        """The encoded properties; `more` are encoded headers. Raises: InvalidPayload when an attribute can't travel."""
        try:
            time = event.time.isoformat().encode()
            fixed = self._sources.get(event.source)
            if fixed is None:
                fixed = self._remember(event.source)
            table = b"".join((fixed, _TIME, _u32.pack(len(time)), time, self._optional(event), more))
            message_id = event.id.encode()
            if not 0 < len(message_id) <= LONGEST_ID or not event.id.isprintable():
                raise ValueError("the id must be 1 to 255 bytes of printable text")
            content_type = self._content_types.get(event.datacontenttype) or short_string(event.datacontenttype)
            return b"".join(
                (
                    _ENCODED if encoding else _PLAIN,
                    content_type,
                    short_string(encoding) if encoding else b"",
                    _u32.pack(len(table)),
                    table,
                    PERSISTENT,
                    bytes((len(message_id),)),
                    message_id,
                    _u64.pack(max(0, int(event.time.timestamp()))),  # before 1970 only the header says it
                    self._type,
                )
            )
        except (ValueError, OverflowError) as error:
            raise InvalidPayload(f"event {event.id[:255]!r} can't be written: {error}") from error

    def _remember(self, source: str) -> bytes:
        if len(self._sources) >= 1024:
            self._sources.clear()
        fixed = self._sources[source] = _VERSION + table_field(f"{PREFIX}source", source)
        return fixed

    def _optional(self, event: AnyEvent) -> bytes:
        if event.subject is None and event.dataschema is None and not event.extensions:
            return b""
        if taken := ATTRIBUTES & event.extensions.keys():
            raise ValueError(f"extension {min(taken)!r} has the name of an attribute")
        attributes = {"subject": event.subject, "dataschema": event.dataschema, **event.extensions}
        return b"".join(
            [table_field(f"{PREFIX}{name}", str(value)) for name, value in attributes.items() if value is not None]
        )


def attribute(properties: Properties, name: str) -> str | None:
    """A CloudEvents attribute among the headers, under either prefix."""
    headers = properties.headers
    value = headers.get(PREFIX + name)
    if value is None:
        value = headers.get(OTHER_PREFIX + name)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return None if value is None else str(value)


def event_type(delivery: Delivery) -> str:
    """The event's type: AMQP's, else the CloudEvents attribute, else the routing key it was first published with."""
    properties = delivery.properties
    if found := properties.type or attribute(properties, "type"):
        return found
    first = properties.headers.get(ROUTING_KEY)  # from a retry queue it comes back under its queue's name
    return first if isinstance(first, str) else delivery.routing_key


def event_id(delivery: Delivery) -> str:
    """The event's id. Raises: MissingId when the message has none, UndecodableBody when it is over 255 bytes."""
    properties = delivery.properties
    found = properties.message_id or attribute(properties, "id")
    if not found:
        raise MissingId(
            f"message on {delivery.routing_key!r} has no id (AMQP message_id); without one it can't be processed once"
        )
    if len(found) > LONGEST_ID // 4 and len(found.encode()) > LONGEST_ID:
        raise UndecodableBody(f"id {found[:40]!r}... is {len(found.encode())} bytes; at most {LONGEST_ID} are taken")
    return found


def event_time(properties: Properties) -> datetime:
    """When it happened, aware, UTC; the epoch when nobody says. Raises: UndecodableBody for an unreadable time."""
    text = attribute(properties, "time")
    if text is None:
        seconds = properties.timestamp if properties.timestamp < YEAR_2106 else properties.timestamp / 1000
        try:
            return datetime.fromtimestamp(seconds, UTC)
        except (ValueError, OverflowError, OSError):
            raise UndecodableBody(f"timestamp {properties.timestamp} is no time") from None
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo is not None else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise UndecodableBody(f"attribute time is {text[:40]!r}, which is no ISO 8601 time") from None


def extensions(properties: Properties) -> dict[str, str]:
    """The CloudEvents attributes that are not of the core, by name."""
    names = properties.headers.keys() - HEADERS_OF_ATTRIBUTES
    own = {name[len(PREFIX) :] for name in names if name.startswith((PREFIX, OTHER_PREFIX))}
    return {name: attribute(properties, name) or "" for name in own}
