"""Events ↔ messages, by the topology. In: `Event` or `Delivery`. Out: `Message` or `Event`, validated."""

from __future__ import annotations

import difflib
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from pipeline.codec.compression import ZSTD, compress, decompress
from pipeline.codec.delay import put_off
from pipeline.codec.envelope import (
    HEADERS_OF_ATTRIBUTES,
    JSON,
    PREFIX,
    STRUCTURED,
    EnvelopeWriter,
    attribute,
    event_id,
    event_time,
    event_type,
    extensions,
)
from pipeline.codec.order_key import KeyWriter
from pipeline.codec.payload import Payload, any_json, from_declaration
from pipeline.errors import InvalidPayload, PayloadTooLarge, UndecodableBody, UnknownEventType, Unroutable
from pipeline.event import NO_EXTENSIONS, AnyEvent, Event
from pipeline.message import Delivery, Message
from pipeline.topology.expand import expand
from pipeline.topology.model import EventType, Subscription, Topology
from pipeline.topology.partitions import as_one_queue, takers
from pipeline.topology.routing import queues_reached


class _TypeCodec:
    """One event type: where it goes, what its data is, how its envelope is written."""

    __slots__ = ("declared", "keys", "payload", "writer")

    def __init__(self, declared: EventType, ordered: Sequence[Subscription]) -> None:
        self.declared = declared
        self.keys = KeyWriter(declared.name, ordered) or None  # other types pay nothing
        self.payload: Payload = from_declaration(declared)
        self.writer = EnvelopeWriter(declared.name)


class Codec:
    """Encodes and decodes events of one topology. `max_body` (bytes) bounds a body, compressed or not."""

    def __init__(self, topology: Topology, max_body: int) -> None:
        self._topology = topology
        self._declared: Mapping[str, EventType] = topology.events
        self._taken: dict[str, bool] = {}  # by event type: whether some queue would take it
        self._types: dict[str, _TypeCodec] = {}
        self._ordered: Mapping[str, Sequence[Subscription]] | None = None
        self._max_body = max_body
        self._any = any_json()

    def _type(self, name: str) -> _TypeCodec:
        known = self._types.get(name)
        if known is None:
            declared = self._declared.get(name)
            if declared is None:
                near = difflib.get_close_matches(name, self._declared, 1)
                hint = f"; did you mean {near[0]!r}?" if near else "; declare it under `events:` in the topology file"
                raise UnknownEventType(f"event type {name!r} is not in the topology{hint}")
            if self._ordered is None:
                self._ordered = takers(self._topology)
            known = self._types[name] = _TypeCodec(declared, self._ordered.get(name, ()))
        return known

    def payload(self, event_type: str) -> Payload:
        """How data of this type is read and written. Raises: UnknownEventType, ConfigurationError."""
        return self._type(event_type).payload

    def write_json(self, value: Any) -> bytes:
        """Any JSON-able value as JSON. Raises: InvalidPayload."""
        return self._any.write(value)

    def encode(self, event: AnyEvent, due: datetime | None = None) -> Message:
        """The message to publish for `event`, its data checked; with `due`, for it to arrive at that time.

        Raises: UnknownEventType, InvalidPayload, PayloadTooLarge; with `due` InvalidDelay, NoDelayLadder, Unroutable.
        """
        kind = self._type(event.type)
        payload = kind.payload
        try:
            body = payload.write(payload.check(event.data))
        except InvalidPayload as error:
            raise InvalidPayload(f"event {event.id} of type {event.type!r}: {error}", error.faults) from error
        message = self._message(kind, event, body)
        return message if due is None else self._put_off(kind, message, due)

    def encode_raw(self, event: Event[bytes], due: datetime | None = None) -> Message:
        """As `encode`, of data that is JSON text already: checked, then sent as it stands."""
        kind = self._type(event.type)
        kind.payload.read(event.data)
        message = self._message(kind, event, event.data)
        return message if due is None else self._put_off(kind, message, due)

    def _put_off(self, kind: _TypeCodec, message: Message, due: datetime) -> Message:
        """Raises: Unroutable when no queue of the topology takes the event: nobody would hear of it when it is due."""
        event = kind.declared
        if event.name not in self._taken:
            bindings = as_one_queue(self._topology, expand(self._topology).bindings)
            self._taken[event.name] = bool(queues_reached(event, self._topology.exchanges, bindings))
        if not self._taken[event.name]:
            raise Unroutable(
                f"event {message.message_id}: no queue of the topology takes {event.name!r}, so it would have nowhere "
                "to go when it is due; add a subscription, or declare the queue",
                message.message_id,
            )
        return put_off(message, due, self._topology.delay)

    def _message(self, kind: _TypeCodec, event: AnyEvent, body: bytes) -> Message:
        encoding = ""
        if len(body) > self._max_body:
            raise PayloadTooLarge(
                f"event {event.id} of type {event.type!r}: {len(body)} bytes of data; at most {self._max_body} are "
                "taken (PIPELINE_MAX_BODY)"
            )
        keys = kind.keys.headers(event, body) if kind.keys else b""
        if kind.declared.compress_over and len(body) > kind.declared.compress_over:
            encoding, body = ZSTD, compress(body)
        properties = kind.writer.write(event, encoding, keys)
        return Message(kind.declared.exchange, kind.declared.routing_key, body, properties, event.id)

    def decode(self, delivery: Delivery, payload: Payload | None = None) -> AnyEvent:
        """The event in `delivery`, its data read as `payload` (default: what the topology declares for its type).

        Raises: MissingId, UnknownEventType, UndecodableBody, PayloadTooLarge, InvalidPayload, ProtocolViolation.
        """
        properties = delivery.properties
        content_type = properties.content_type or JSON
        body = delivery.body
        if len(body) > self._max_body:
            raise PayloadTooLarge(f"{len(body)} bytes of body; at most {self._max_body} are taken (PIPELINE_MAX_BODY)")
        if properties.content_encoding:
            body = decompress(body, properties.content_encoding, self._max_body)
        if content_type != JSON:
            essence = content_type.partition(";")[0].strip().lower()
            if essence == STRUCTURED:
                return self._decode_structured(delivery, body, payload)
            if essence != JSON and not essence.endswith("+json"):
                raise UndecodableBody(f"content type {content_type[:60]!r} is not JSON")
        name = event_type(delivery)
        if payload is None:
            payload = self._type(name).payload
        if not body:
            raise UndecodableBody("the body is empty")
        others = NO_EXTENSIONS if properties.headers.keys() <= HEADERS_OF_ATTRIBUTES else extensions(properties)
        return Event(
            name,
            payload.read(body),
            event_id(delivery),
            attribute(properties, "source") or properties.app_id or "unknown",
            event_time(properties),
            attribute(properties, "subject"),
            attribute(properties, "dataschema"),
            content_type,
            others,
        )

    def _decode_structured(self, delivery: Delivery, body: bytes, payload: Payload | None) -> AnyEvent:
        """A CloudEvent whose attributes are in the body as well (structured mode)."""
        whole: Any = self._any.read(body)
        if not isinstance(whole, dict):
            raise UndecodableBody("a structured CloudEvent must be a JSON object")
        headers = {f"{PREFIX}{name}": value for name, value in whole.items() if name not in ("data", "data_base64")}
        content_type = str(whole.get("datacontenttype") or JSON)
        if content_type.startswith(STRUCTURED):
            raise UndecodableBody("a structured CloudEvent within a structured CloudEvent")
        properties = replace(
            delivery.properties,
            content_type=content_type,
            content_encoding="",
            message_id=str(whole.get("id") or delivery.properties.message_id),
            type=str(whole.get("type") or delivery.properties.type),
            headers={**delivery.properties.headers, **headers},
        )
        inner = Delivery(
            delivery.tag, delivery.epoch, delivery.redelivered, delivery.exchange, delivery.routing_key, b"", b"{}"
        )
        inner.use(properties, self._structured_data(whole))
        return self.decode(inner, payload)

    def _structured_data(self, whole: dict[str, Any]) -> bytes:
        if "data_base64" not in whole:
            return self._any.write(whole.get("data"))
        try:
            return b64decode(whole["data_base64"], validate=True)
        except (ValueError, TypeError) as error:
            raise UndecodableBody(f"data_base64 can't be read: {error}") from error
