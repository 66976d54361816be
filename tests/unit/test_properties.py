"""Properties and field tables ↔ bytes, with pamqp as the judge of both directions, and hostile bytes."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from pipeline.errors import ProtocolViolation
from pipeline.field_table import MAX_DEPTH, encode_table
from pipeline.message import DELIVERY_COUNT, Delivery
from pipeline.properties import Properties, decode_properties, encode_properties

BEFORE_PROPERTIES = bytes(12)  # class, weight and body size, in front of the properties of a content header
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
short = text.filter(lambda word: len(word.encode()) < 256)
names = text.filter(lambda word: len(word.encode()) <= 128)  # the specification's limit, which pamqp keeps
moments = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=0)
)
decimals = st.decimals(0, 20_000_000, places=2)
scalars = (
    text
    | st.booleans()
    | st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, width=32)
    | st.binary(max_size=40)
    | moments
    | decimals
)
tables = st.dictionaries(
    names,
    st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4)),
    max_size=6,
)
properties = st.builds(
    Properties,
    message_id=short,
    type=short,
    content_type=short,
    content_encoding=short,
    timestamp=st.integers(0, 2**32 - 1),
    app_id=short,
    correlation_id=short,
    headers=tables,
    priority=st.none() | st.integers(0, 255),
    expiration=short,
    reply_to=short,
)


def as_pamqp(value: Any) -> Any:
    """The value in pamqp's types: it writes only bytearrays as byte arrays."""
    match value:
        case bytes():
            return bytearray(value)
        case list():
            return [as_pamqp(item) for item in value]
        case dict():
            return {name: as_pamqp(item) for name, item in value.items()}
        case _:
            return value


def pamqp_properties(given_properties: Properties) -> Basic.Properties:
    return Basic.Properties(
        content_type=given_properties.content_type or None,
        content_encoding=given_properties.content_encoding or None,
        headers=as_pamqp(given_properties.headers) or None,
        delivery_mode=2,
        priority=given_properties.priority,
        correlation_id=given_properties.correlation_id or None,
        reply_to=given_properties.reply_to or None,
        expiration=given_properties.expiration or None,
        message_id=given_properties.message_id or None,
        timestamp=datetime.fromtimestamp(given_properties.timestamp, UTC) if given_properties.timestamp else None,
        message_type=given_properties.type or None,
        app_id=given_properties.app_id or None,
    )


@given(properties)
def test_what_is_encoded_decodes_to_the_same(given_properties: Properties) -> None:
    assert decode_properties(encode_properties(given_properties)) == given_properties


@given(properties)
def test_pamqp_reads_what_is_written_here(given_properties: Properties) -> None:
    header = ContentHeader()

    header.unmarshal(BEFORE_PROPERTIES + encode_properties(given_properties))

    assert dict(header.properties) == dict(pamqp_properties(given_properties))


@given(properties)
def test_what_pamqp_writes_is_read_here(given_properties: Properties) -> None:
    written = ContentHeader(0, 0, pamqp_properties(given_properties)).marshal()[len(BEFORE_PROPERTIES) :]

    assert decode_properties(written) == given_properties


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"b\xff", -1),
        (b"B\xff", 255),
        (b"s\xff\xfe", -2),
        (b"u\xff\xfe", 65534),
        (b"I\xff\xff\xff\xfd", -3),
        (b"i\xff\xff\xff\xfd", 2**32 - 3),
        (b"l" + b"\xff" * 8, -1),
        (b"L" + b"\xff" * 8, -1),
        (b"f\x3f\xc0\x00\x00", 1.5),
        (b"d\x3f\xf8\x00\x00\x00\x00\x00\x00", 1.5),
        (b"D\x02\xff\xff\xff\x9c", Decimal("-1.00")),
        (b"t\x01", True),
        (b"V", None),
        (b"T\x00\x00\x00\x00\x00\x00\x00\x01", datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)),
        (b"T\x00\x00\x01\x93\x00\x00\x00\x00", 0x193_0000_0000),  # milliseconds: no such year, but a number still
        (b"S\x00\x00\x00\x02\xc3\xa4", "ä"),
        (b"S\x00\x00\x00\x02\xff\xfe", b"\xff\xfe"),  # not UTF-8
        (b"x\x00\x00\x00\x01\xff", b"\xff"),
        (b"A\x00\x00\x00\x03t\x00V", [False, None]),
        (b"F\x00\x00\x00\x03\x01kV", {"k": None}),
    ],
)
def test_every_field_type_of_the_protocol_is_read(raw: bytes, value: object) -> None:
    found = decode_properties(with_header_bytes(b"\x01h" + raw)).headers["h"]

    assert found == value
    assert type(found) is type(value)


def with_header_bytes(entries: bytes) -> bytes:
    """Properties that have nothing but a header table of these entries."""
    return b"\x20\x00" + len(entries).to_bytes(4) + entries


@given(st.binary(max_size=255), st.binary(max_size=255))
def test_ids_that_are_no_text_stay_apart_and_fit_into_a_copy(one: bytes, other: bytes) -> None:
    def read(raw: bytes) -> str:
        return decode_properties(b"\x00\x80" + bytes((len(raw),)) + raw).message_id

    first, second = read(one), read(other)

    assert len(first.encode()) <= 255
    assert decode_properties(encode_properties(Properties(message_id=first))).message_id == first
    if is_text(one) == is_text(other) and one[:127] != other[:127]:
        assert first != second


def is_text(raw: bytes) -> bool:
    return raw.decode("utf-8", "ignore").encode() == raw


# --- what can't be written ---


@pytest.mark.parametrize(
    "bad",
    [
        Properties(message_id="x" * 256),
        Properties(type="ä" * 128),
        Properties(message_id="\ud800"),
        Properties(timestamp=-1),
        Properties(timestamp=2**64),
        Properties(priority=256),
        Properties(headers={"x" * 256: 1}),
        Properties(headers={"h": 2**63}),
        Properties(headers={"h": -(2**63) - 1}),
        Properties(headers={"h": object()}),
        Properties(headers={"h": Decimal("NaN")}),
        Properties(headers={"h": Decimal("1E+5")}),
        Properties(headers={"h": Decimal("99999999999.5")}),
        Properties(headers={"h": datetime(1969, 1, 1, tzinfo=UTC)}),
        Properties(headers={"h": [{"deep": {1, 2}}]}),
    ],
)
def test_what_amqp_can_not_carry_is_a_value_error(bad: Properties) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the callers add whose it was
        encode_properties(bad)


# --- hostile bytes ---


def nested(kind: bytes, name: bytes, depth: int) -> bytes:
    """The header bytes of `depth` tables or arrays in each other."""
    entry = b"V"
    for _ in range(depth):
        inner = name + entry
        entry = kind + len(inner).to_bytes(4) + inner
    return b"\x01h" + entry


def survive(data: bytes) -> None:
    """Decode; whatever comes out must be encodable again, and nothing but ProtocolViolation may be raised."""
    try:
        found = decode_properties(data)
    except ProtocolViolation:
        return
    again = decode_properties(encode_properties(found))
    assert repr(again) == repr(replace(found, headers=dict(found.headers)))  # repr: NaN is not equal to itself


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    survive(data)


@given(properties, st.data())
def test_damaged_properties_are_read_or_refused(given_properties: Properties, data: st.DataObject) -> None:
    whole = bytearray(encode_properties(given_properties))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                whole[at] = data.draw(st.integers(0, 255))
            case 1:
                whole.insert(at, data.draw(st.integers(0, 255)))
            case _ if len(whole) > 1:
                del whole[at]
    survive(bytes(whole))


@given(properties, st.data())
def test_properties_cut_short_are_refused(given_properties: Properties, data: st.DataObject) -> None:
    whole = encode_properties(given_properties)

    with pytest.raises(ProtocolViolation):
        decode_properties(whole[: data.draw(st.integers(0, len(whole) - 1))])


@pytest.mark.parametrize(("kind", "name"), [(b"F", b"\x01h"), (b"A", b"")], ids=["tables", "arrays"])
def test_deep_nesting_is_refused_before_the_stack_ends(kind: bytes, name: bytes) -> None:
    decode_properties(with_header_bytes(nested(kind, name, MAX_DEPTH)))

    for depth in (MAX_DEPTH + 2, 1000, 20_000):
        with pytest.raises(ProtocolViolation, match="too deep"):
            decode_properties(with_header_bytes(nested(kind, name, depth)))


@pytest.mark.parametrize("kind", [b"S", b"x", b"A", b"F"])
def test_a_length_that_lies_costs_no_memory(kind: bytes) -> None:
    lying = with_header_bytes(b"\x01h" + kind + b"\xff\xff\xff\xff" + b"x" * 10)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolViolation):
            decode_properties(lying)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01",  # a further word of flags, that nobody has defined
        b"\x00\x80\x01",  # a text that ends before it begins
        b"\x00\x00left over",
        with_header_bytes(b"\x01h?"),  # no such field type
        with_header_bytes(b"\x01hT\x80" + bytes(7)),  # a time beyond all numbers that can be written again
        with_header_bytes(b"\x01hA\x00\x00\x00\x02l\x00\x01aV\x01bV\x01cV"),  # an item over its array's end
        with_header_bytes(b"\x01hl") + bytes(8),  # an entry over its table's end
    ],
)
def test_what_breaks_the_grammar_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="can't be read"):
        decode_properties(data)


# --- deliveries ---


def delivery(redelivered: bool, raw: bytes) -> Delivery:
    return Delivery(1, 1, redelivered, "events", "order.created", raw, b"{}")


@pytest.mark.parametrize(
    ("redelivered", "raw", "count"),
    [
        (True, encode_properties(Properties(headers={DELIVERY_COUNT: 3})), 3),
        (False, encode_properties(Properties(headers={DELIVERY_COUNT: 3})), 0),  # a sender's invention
        (True, encode_properties(Properties(headers={DELIVERY_COUNT: "3"})), 0),
        (True, encode_properties(Properties()), 0),
        (True, b"no properties", 0),
    ],
)
def test_a_delivery_knows_how_often_it_was_handed_out(redelivered: bool, raw: bytes, count: int) -> None:
    assert delivery(redelivered, raw).delivery_count == count


def test_properties_that_can_not_be_read_are_refused_when_they_are_asked_for() -> None:
    unreadable = delivery(False, encode_table({"no": "properties"}))

    with pytest.raises(ProtocolViolation):
        _ = unreadable.properties
