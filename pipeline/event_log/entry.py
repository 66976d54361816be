"""One event as it lies in the log. In: a delivery from the stream. Out: its attributes and data, CloudEvents JSON.

Nothing of it is checked against a model: the log holds what was published, also what nobody can read.
"""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from pydantic_core import from_json

from pipeline.amqp.stream import offset_of
from pipeline.codec.compression import decompress
from pipeline.codec.envelope import (
    ATTRIBUTES,
    JSON,
    OTHER_PREFIX,
    PREFIX,
    STRUCTURED,
    attribute,
    event_time,
    event_type,
    extensions,
)
from pipeline.errors import EventError, ProtocolViolation, UndecodableBody
from pipeline.message import DELAY_TO, Delivery
from pipeline.properties import Properties

NEVER = datetime.fromtimestamp(0, UTC)


class Entry:
    """An event of the log. What can't be read of it is "", None or 1970."""

    def __init__(self, delivery: Delivery, max_body: int) -> None:
        self.delivery = delivery
        self._max_body = max_body

    @cached_property
    def properties(self) -> Properties:
        return self.delivery.readable

    @property
    def offset(self) -> int:
        return offset_of(self.delivery)

    @cached_property
    def id(self) -> str:
        return self.properties.message_id or self._attribute("id") or ""

    @cached_property
    def type(self) -> str:
        if self._structured is not None and not self.properties.type:
            return str(self._structured.get("type") or self.delivery.routing_key)
        try:
            return event_type(self.delivery)
        except ProtocolViolation:
            return self.properties.type or self.delivery.routing_key

    @cached_property
    def source(self) -> str:
        return self._attribute("source") or self.properties.app_id or "unknown"

    @cached_property
    def subject(self) -> str | None:
        return self._attribute("subject")

    @cached_property
    def time(self) -> datetime:
        """When it happened, as its publisher says, aware, UTC."""
        try:
            if self._structured is not None and isinstance(text := self._structured.get("time"), str):
                return datetime.fromisoformat(text).astimezone(UTC)
            return event_time(self.properties)
        except (UndecodableBody, ValueError, OverflowError, OSError):
            return NEVER

    @property
    def exchange(self) -> str:
        """Where it was published to, also when it came through the delay ladder."""
        return str(self.properties.headers.get(DELAY_TO) or self.delivery.exchange)

    @property
    def routing_key(self) -> str:
        return self.delivery.routing_key

    @property
    def size(self) -> int:
        """Bytes of body and properties."""
        return len(self.delivery.body) + len(self.delivery.raw_properties)

    @cached_property
    def body(self) -> bytes | None:
        """The body, decompressed; None when it can't be."""
        encoding = self.properties.content_encoding
        if not encoding:
            return self.delivery.body
        try:
            return decompress(self.delivery.body, encoding, self._max_body)
        except EventError:
            return None

    @cached_property
    def data(self) -> Any:
        """The data as JSON values; None when they can't be read."""
        if self._structured is not None:
            return self._structured.get("data")
        return self._json(self.body)

    @property
    def json_text(self) -> bytes | None:
        """The data as JSON text in one line, each number as it was written; None when it is not JSON."""
        if self._structured is not None:
            if "data_base64" in self._structured:
                return None
            return json.dumps(self._structured.get("data"), ensure_ascii=False).encode()
        body = self.body
        if body is None or (self.data is None and body.strip() != b"null"):
            return None
        # Line breaks in JSON text stand between values only.
        return body.replace(b"\r", b" ").replace(b"\n", b" ") if b"\n" in body or b"\r" in body else body

    def attributes(self) -> dict[str, Any]:
        """The CloudEvents attributes, extensions among them, as JSON values."""
        properties = self.properties
        found: dict[str, Any] = {
            "specversion": "1.0",
            "id": self.id,
            "type": self.type,
            "source": self.source,
            "time": self.time.isoformat().replace("+00:00", "Z"),
        }
        if self.subject is not None:
            found["subject"] = self.subject
        if schema := self._attribute("dataschema"):
            found["dataschema"] = schema
        content_type = properties.content_type or JSON
        if self._structured is not None:
            content_type = str(self._structured.get("datacontenttype") or JSON)
            known = (*ATTRIBUTES, "data", "data_base64")
            found |= {name: value for name, value in self._structured.items() if name not in known}
        found["datacontenttype"] = content_type
        return found | extensions(properties)

    def structured(self, more: dict[str, Any] | None = None) -> bytes:
        """One line of CloudEvents JSON, in structured mode; the data come last, as they were written."""
        head = json.dumps(self.attributes() | (more or {}), ensure_ascii=False).encode("utf-8", "replace")[:-1]
        if (text := self.json_text) is not None:
            return head + b',"data":' + text + b"}"
        raw = self.body if self.body is not None else self.delivery.body
        if self._structured is not None:
            return head + b',"data_base64":' + json.dumps(self._structured["data_base64"]).encode() + b"}"
        return head + b',"data_base64":"' + b64encode(raw) + b'"}'

    def _attribute(self, name: str) -> str | None:
        if self._structured is not None and isinstance(value := self._structured.get(name), str):
            return value
        return attribute(self.properties, name)

    @cached_property
    def _structured(self) -> dict[str, Any] | None:
        """The body of an event that came in structured mode."""
        if not self.properties.content_type.startswith(STRUCTURED):
            return None
        whole = self._json(self.body)
        return whole if isinstance(whole, dict) else None

    def _json(self, body: bytes | None) -> Any:
        try:
            return from_json(body) if body else None
        except (ValueError, RecursionError):
            return None


def is_attribute(header: str) -> bool:
    """Whether a header carries a CloudEvents attribute."""
    return header.startswith((PREFIX, OTHER_PREFIX))
