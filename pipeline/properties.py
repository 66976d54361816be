"""AMQP 0-9-1 basic properties ↔ bytes. In: `Properties`. Out: the bytes of a content header, and back.

Written here because both directions stand on the hot path. Pure: no client library.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from struct import Struct
from typing import Any

from pipeline.errors import ProtocolViolation
from pipeline.field_table import decode_short_string, decode_table, encode_table, short_string

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

_u16 = Struct(">H")
_u32 = Struct(">I")
_u64 = Struct(">Q")


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


def decode_properties(data: bytes, with_headers: bool = True) -> Properties:
    """The properties in `data` (flags first, as `encode_properties` gives); the headers may be passed over.

    Raises: ProtocolViolation when the bytes are not properties.
    """
    try:
        return _decode_properties(data, with_headers)
    except (IndexError, struct.error, ValueError, OverflowError, OSError) as error:  # OSError: a time beyond the clock
        raise ProtocolViolation(f"message properties can't be read: {error}") from error


def readable_properties(data: bytes) -> Properties:
    """What can be read of `data`: everything, everything but the headers, or nothing. Never fails."""
    for with_headers in (True, False):
        with suppress(ProtocolViolation):
            return decode_properties(data, with_headers)
    return Properties()


def _decode_properties(data: bytes, with_headers: bool) -> Properties:
    (flags,) = _u16.unpack_from(data, 0)
    if flags & MORE_FLAGS:
        raise ValueError("more than one flag word")
    at = 2
    content_type = content_encoding = correlation_id = reply_to = expiration = message_id = kind = app_id = ""
    headers: Mapping[str, Any] = {}
    priority: int | None = None
    timestamp = 0
    if flags & CONTENT_TYPE:
        content_type, at = decode_short_string(data, at)
    if flags & CONTENT_ENCODING:
        content_encoding, at = decode_short_string(data, at)
    if flags & HEADERS:
        headers, at = decode_table(data, at) if with_headers else ({}, at + 4 + _u32.unpack_from(data, at)[0])
    if flags & DELIVERY_MODE:
        at += 1
    if flags & PRIORITY:
        priority = data[at]
        at += 1
    if flags & CORRELATION_ID:
        correlation_id, at = decode_short_string(data, at)
    if flags & REPLY_TO:
        reply_to, at = decode_short_string(data, at)
    if flags & EXPIRATION:
        expiration, at = decode_short_string(data, at)
    if flags & MESSAGE_ID:
        message_id, at = decode_short_string(data, at)
    if flags & TIMESTAMP:
        (timestamp,) = _u64.unpack_from(data, at)
        at += 8
    if flags & TYPE:
        kind, at = decode_short_string(data, at)
    if flags & USER_ID:
        _, at = decode_short_string(data, at)
    if flags & APP_ID:
        app_id, at = decode_short_string(data, at)
    if flags & CLUSTER_ID:
        _, at = decode_short_string(data, at)
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes left over")
    return Properties(
        message_id, kind, content_type, content_encoding, timestamp, app_id, correlation_id, headers, priority,
        expiration, reply_to,
    )  # fmt: skip
