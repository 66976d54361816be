"""An archived event as a value. In: an `Entry`. Out: a `Record`; and back to a delivery, as if from the stream."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipeline.amqp.stream import OFFSET
from pipeline.codec.envelope import ATTRIBUTES, PREFIX
from pipeline.event_log.entry import Entry
from pipeline.message import Delivery
from pipeline.properties import Properties

# CloudEvents extension attributes of the archive's own.
LOG_OFFSET, LOG_EXCHANGE, LOG_KEY = "logoffset", "logexchange", "logroutingkey"
_OWN = (LOG_OFFSET, LOG_EXCHANGE, LOG_KEY)


@dataclass(frozen=True, slots=True)
class Record:
    """`attributes` are CloudEvents attributes; `data` is JSON text, or None and `raw` is what the body was."""

    offset: int
    exchange: str
    routing_key: str
    attributes: Mapping[str, Any]
    data: bytes | None
    raw: bytes = field(default=b"")

    @property
    def day(self) -> str:
        """The day it happened, UTC."""
        return str(self.attributes["time"])[:10]


def record_of(entry: Entry) -> Record:
    """The record of an entry."""
    text = entry.json_text
    raw = b"" if text is not None else (entry.body if entry.body is not None else entry.delivery.body)
    return Record(entry.offset, entry.exchange, entry.routing_key, entry.attributes(), text, raw)


def delivery_of(record: Record) -> Delivery:
    """The record as it came from the stream; what was compressed comes as it is read."""
    known = record.attributes
    headers: dict[str, Any] = {
        f"{PREFIX}{name}": value for name, value in known.items() if name not in ("id", "type", "datacontenttype")
    }
    headers[OFFSET] = record.offset
    properties = Properties(
        message_id=str(known["id"]),
        type=str(known["type"]),
        content_type=str(known["datacontenttype"]),
        timestamp=max(0, int(datetime.fromisoformat(str(known["time"])).timestamp())),
        headers=headers,
    )
    body = record.data if record.data is not None else record.raw
    delivery = Delivery(0, 0, False, record.exchange, record.routing_key, b"", body)
    delivery.use(properties, body)
    return delivery


def record_from(attributes: Mapping[str, Any], data: bytes | None, encoded: str | None) -> Record:
    """A record from what a file says. Raises: ValueError, KeyError when it says too little."""
    offset = int(attributes[LOG_OFFSET])
    exchange, key = str(attributes[LOG_EXCHANGE]), str(attributes[LOG_KEY])
    own = {name: value for name, value in attributes.items() if name not in _OWN}
    raw = b64decode(encoded, validate=True) if encoded is not None else b""
    for name in ("id", "type", "time", "datacontenttype"):
        _ = own[name]
    return Record(offset, exchange, key, own, data, raw)


def is_core(name: str) -> bool:
    """Whether it is an attribute of CloudEvents itself."""
    return name in ATTRIBUTES
