"""AMQP 0-9-1 basic properties and field tables ↔ bytes. In: `Properties`. Out: the bytes of a content header, and back.

Written here because both directions stand on the hot path: the wire form is the specification's section 4.2.5 and
RabbitMQ's table of field types (https://www.rabbitmq.com/amqp-0-9-1-errata#section_3). Pure: no client library.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from struct import Struct
from typing import Any

from pipeline.errors import ProtocolViolation

CONTENT_TYPE = 0x8000
CONTENT_ENCODING = 0x4000
HEADERS = 0x2000
DELIVERY_MODE = 0x1000
PRIORITY = 0x0800
CORRELATION_ID = 0x0400
REPLY_TO = 0x0200
EXPIRATION = 0x0100
MESSAGE_ID = 0x0080
TIMESTAMP = 0x0040
TYPE = 0x0020
USER_ID = 0x0010
APP_ID = 0x0008
CLUSTER_ID = 0x0004
MORE_FLAGS = 0x0001

PERSISTENT = b"\x02"
MAX_DEPTH = 32  # of tables in tables; a hostile table must not exhaust the stack

_u16 = Struct(">H")
_u32 = Struct(">I")
_u64 = Struct(">Q")
_i64 = Struct(">q")
_f64 = Struct(">d")
_NUMBERS: dict[int, Struct] = {
    ord("b"): Struct(">b"),
    ord("B"): Struct(">B"),
    ord("s"): Struct(">h"),
    ord("u"): Struct(">H"),
    ord("I"): Struct(">i"),
    ord("i"): Struct(">I"),
    ord("l"): Struct(">q"),
    ord("L"): Struct(">q"),  # RabbitMQ: signed, whatever the specification's letter says
    ord("f"): Struct(">f"),
    ord("d"): Struct(">d"),
}


@dataclass(frozen=True, slots=True)
class Properties:
    """Basic properties as used here. `timestamp` is seconds since the epoch. Written as persistent, always."""

    message_id: str = ""
    type: str = ""
    content_type: str = ""
    content_encoding: str = ""
    timestamp: int = 0
    app_id: str = ""
    correlation_id: str = ""
    headers: Mapping[str, Any] = field(default_factory=dict)
    priority: int | None = None
    expiration: str = ""
    reply_to: str = ""


def encode_properties(properties: Properties) -> bytes:
    """The bytes of a content header behind its body size: flags, then the properties that are set.

    Whatever `decode_properties` gave can be encoded again.

    Raises: ValueError when a text is over 255 bytes, or a number or a header's value has no AMQP form.
    """
    try:
        return _encode_properties(properties)
    except struct.error as error:
        raise ValueError(f"a number is out of AMQP's range: {error}") from error


def _encode_properties(properties: Properties) -> bytes:
    flags = DELIVERY_MODE
    parts: list[bytes] = []
    if properties.content_type:
        flags |= CONTENT_TYPE
        parts.append(short_string(properties.content_type))
    if properties.content_encoding:
        flags |= CONTENT_ENCODING
        parts.append(short_string(properties.content_encoding))
    if properties.headers:
        flags |= HEADERS
        parts.append(encode_table(properties.headers))
    parts.append(PERSISTENT)
    if properties.priority is not None:
        flags |= PRIORITY
        parts.append(bytes((properties.priority,)))
    for bit, text in (
        (CORRELATION_ID, properties.correlation_id),
        (REPLY_TO, properties.reply_to),
        (EXPIRATION, properties.expiration),
        (MESSAGE_ID, properties.message_id),
    ):
        if text:
            flags |= bit
            parts.append(short_string(text))
    if properties.timestamp:
        flags |= TIMESTAMP
        parts.append(_u64.pack(properties.timestamp))
    if properties.type:
        flags |= TYPE
        parts.append(short_string(properties.type))
    if properties.app_id:
        flags |= APP_ID
        parts.append(short_string(properties.app_id))
    return _u16.pack(flags) + b"".join(parts)


def decode_properties(data: bytes) -> Properties:
    """The properties in `data` (flags first, as `encode_properties` gives).

    Raises: ProtocolViolation when the bytes are not properties.
    """
    try:
        return _decode_properties(data)
    except (IndexError, struct.error, ValueError, OverflowError, OSError) as error:  # OSError: a time beyond the clock
        raise ProtocolViolation(f"message properties can't be read: {error}") from error


def _decode_properties(data: bytes) -> Properties:
    (flags,) = _u16.unpack_from(data, 0)
    if flags & MORE_FLAGS:
        raise ValueError("more than one flag word")
    at = 2
    content_type = content_encoding = correlation_id = reply_to = expiration = message_id = kind = app_id = ""
    headers: Mapping[str, Any] = {}
    priority: int | None = None
    timestamp = 0
    if flags & CONTENT_TYPE:
        content_type, at = _text(data, at)
    if flags & CONTENT_ENCODING:
        content_encoding, at = _text(data, at)
    if flags & HEADERS:
        headers, at = decode_table(data, at)
    if flags & DELIVERY_MODE:
        at += 1
    if flags & PRIORITY:
        priority = data[at]
        at += 1
    if flags & CORRELATION_ID:
        correlation_id, at = _text(data, at)
    if flags & REPLY_TO:
        reply_to, at = _text(data, at)
    if flags & EXPIRATION:
        expiration, at = _text(data, at)
    if flags & MESSAGE_ID:
        message_id, at = _text(data, at)
    if flags & TIMESTAMP:
        (timestamp,) = _u64.unpack_from(data, at)
        at += 8
    if flags & TYPE:
        kind, at = _text(data, at)
    if flags & USER_ID:
        _, at = _text(data, at)
    if flags & APP_ID:
        app_id, at = _text(data, at)
    if flags & CLUSTER_ID:
        _, at = _text(data, at)
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes left over")
    return Properties(
        message_id, kind, content_type, content_encoding, timestamp, app_id, correlation_id, headers, priority,
        expiration, reply_to,
    )  # fmt: skip


def _text(data: bytes, at: int) -> tuple[str, int]:
    stop = at + 1 + data[at]
    if stop > len(data):
        raise IndexError("text runs over the end")
    raw = data[at + 1 : stop]
    try:
        return raw.decode(), stop
    except UnicodeDecodeError:
        # Other programs may put any bytes there. Different ones stay different, for an id may be among them, and what
        # was read must fit into 255 bytes again when it is copied.
        return raw.decode("latin-1").encode()[:255].decode("utf-8", "ignore"), stop


def short_string(text: str) -> bytes:
    """An AMQP short string. Raises: ValueError over 255 bytes."""
    raw = text.encode()
    if len(raw) > 255:
        raise ValueError(f"{text[:40]!r}... is {len(raw)} bytes; AMQP takes at most 255 here")
    return bytes((len(raw),)) + raw


def table_field(name: str, value: Any) -> bytes:
    """One entry of a field table. Raises: ValueError when the value has no AMQP form."""
    return short_string(name) + _encode_value(value)


def encode_table(table: Mapping[str, Any]) -> bytes:
    """An AMQP field table: its length, then its entries."""
    body = b"".join([table_field(name, value) for name, value in table.items()])
    return _u32.pack(len(body)) + body


def _encode_value(value: Any) -> bytes:
    match value:
        case str():
            raw = value.encode()
            return b"S" + _u32.pack(len(raw)) + raw
        case bool():
            return b"t\x01" if value else b"t\x00"
        case int() if -(2**63) <= value < 2**63:
            return b"l" + _i64.pack(value)
        case float():
            return b"d" + _f64.pack(value)
        case None:
            return b"V"
        case bytes():
            return b"x" + _u32.pack(len(value)) + value
        case datetime():
            return b"T" + _u64.pack(int(value.timestamp()))
        case Decimal():
            sign, digits, exponent = value.as_tuple()
            if not isinstance(exponent, int) or exponent > 0 or exponent < -255:
                raise ValueError(f"{value!r} has no AMQP form")
            unscaled = int("".join(map(str, digits))) * (-1 if sign else 1)
            return b"D" + bytes((-exponent,)) + Struct(">i").pack(unscaled)
        case Mapping():
            return b"F" + encode_table(value)
        case list() | tuple():
            body = b"".join([_encode_value(item) for item in value])
            return b"A" + _u32.pack(len(body)) + body
        case _:
            raise ValueError(f"a header of type {type(value).__name__} has no AMQP form")


def decode_table(data: bytes, at: int, depth: int = 0) -> tuple[dict[str, Any], int]:
    """The field table at `data[at:]` and the position behind it. A text that is not UTF-8 comes out as bytes."""
    (size,) = _u32.unpack_from(data, at)
    at += 4
    stop = at + size
    if stop > len(data):
        raise IndexError("table runs over the end")
    if depth > MAX_DEPTH:
        raise ValueError("tables nested too deep")
    table: dict[str, Any] = {}
    while at < stop:
        name, at = _text(data, at)
        if data[at] == 83:  # "S", by far the most frequent: kept out of the call
            (length,) = _u32.unpack_from(data, at + 1)
            end = at + 5 + length
            if end > stop:
                raise IndexError("text runs over the end")
            table[name] = _long_text(data[at + 5 : end])
            at = end
        else:
            table[name], at = _decode_value(data, at, depth)
    if at != stop:
        raise IndexError("table entry runs over the table's end")
    return table, at


def _decode_value(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    kind = data[at]
    at += 1
    if number := _NUMBERS.get(kind):
        return number.unpack_from(data, at)[0], at + number.size
    match chr(kind):
        case "t":
            return data[at] != 0, at + 1
        case "V":
            return None, at
        case "T":
            return _time(_u64.unpack_from(data, at)[0]), at + 8
        case "D":
            scale, unscaled = data[at], Struct(">i").unpack_from(data, at + 1)[0]
            return Decimal(unscaled).scaleb(-scale), at + 5
        case "F":
            return decode_table(data, at, depth + 1)
        case "S" | "x" | "A" as letter:
            (size,) = _u32.unpack_from(data, at)
            at += 4
            stop = at + size
            if stop > len(data):
                raise IndexError("value runs over the end")
            if letter == "S":
                return _long_text(data[at:stop]), stop
            if letter == "x":
                return bytes(data[at:stop]), stop
            return _decode_array(data, at, stop, depth), stop
        case letter:
            raise ValueError(f"unknown field type {letter!r}")


def _decode_array(data: bytes, at: int, stop: int, depth: int) -> list[Any]:
    if depth > MAX_DEPTH:
        raise ValueError("arrays nested too deep")
    items = []
    while at < stop:
        item, at = _decode_value(data, at, depth + 1)
        items.append(item)
    if at != stop:
        raise IndexError("array item runs over the array's end")
    return items


def _long_text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _time(seconds: int) -> datetime | int:
    """The moment; its number where Python has no such year, as when somebody wrote milliseconds."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return seconds
