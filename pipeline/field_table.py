"""AMQP 0-9-1 short strings and field tables ↔ bytes. In: Python values. Out: their wire form, and back.

The wire form is the specification's section 4.2.5 with RabbitMQ's table of field types
(https://www.rabbitmq.com/amqp-0-9-1-errata#section_3). Whatever is decoded here can be encoded again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from struct import Struct
from typing import Any

MAX_DEPTH = 32  # of tables in tables; a hostile table must not exhaust the stack

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


def decode_short_string(data: bytes, at: int) -> tuple[str, int]:
    """The short string at `data[at:]` and the position behind it. Raises: IndexError when it runs over the end."""
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
    """An AMQP field table: its length, then its entries.

    Raises: ValueError, struct.error when a name, value or number has no AMQP form.
    """
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
    """The field table at `data[at:]` and the position behind it. A text that is not UTF-8 comes out as bytes.

    Raises: IndexError, ValueError, struct.error when the bytes are no field table.
    """
    (size,) = _u32.unpack_from(data, at)
    at += 4
    stop = at + size
    if stop > len(data):
        raise IndexError("table runs over the end")
    if depth > MAX_DEPTH:
        raise ValueError("tables nested too deep")
    table: dict[str, Any] = {}
    while at < stop:
        name, at = decode_short_string(data, at)
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
    """The moment; its number where Python has no such year, as when somebody wrote milliseconds.

    Raises: ValueError for a number that could not be written again.
    """
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        if seconds >= 2**63:
            raise ValueError(f"{seconds} is no time") from None
        return seconds
