"""Events ↔ messages: an event comes back as it went, and what other programs send is read or refused by name."""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.codec import Codec
from pipeline.errors import (
    InvalidPayload,
    MissingId,
    PayloadTooLarge,
    ProtocolViolation,
    UndecodableBody,
    UnknownEventType,
)
from pipeline.event import AnyEvent, Event
from pipeline.message import Delivery, Message
from pipeline.properties import Properties, encode_properties
from tests.support.topologies import topology_of
from tests.unit.codec.models import Order

MAX_BODY = 100_000  # bytes
TOPOLOGY = topology_of("""\
exchanges:
  events: {type: topic}
events:
  order.created: {exchange: events}
  order.packed: {exchange: events, compress_over: 20}
  order.paid: {exchange: events, routing_key: paid, model: "tests.unit.codec.models:Order"}
subscriptions:
  all: {routing_keys: ["#"], exchange: events}
""")
CODEC = Codec(TOPOLOGY, MAX_BODY)


def arrival(message: Message) -> Delivery:
    """The message as it comes out of its queue."""
    return Delivery(1, 1, False, message.exchange, message.routing_key, message.properties, message.body)


def foreign(body: bytes = b"{}", routing_key: str = "order.created", **properties: Any) -> Delivery:
    """A message of another program."""
    given_properties = Properties(**{"message_id": "id-1", **properties})
    return Delivery(1, 1, False, "events", routing_key, encode_properties(given_properties), body)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ids = texts.filter(lambda text: text.isprintable() and 0 < len(text.encode()) < 256)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
extension_names = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=20).filter(
    lambda name: name not in ("id", "type", "source", "time", "subject")
)
events = st.builds(
    Event,
    type=st.sampled_from(["order.created", "order.packed"]),
    data=values,
    id=ids,
    source=texts.filter(bool),
    time=st.datetimes(timezones=st.just(UTC)),
    subject=st.none() | texts,
    dataschema=st.none() | texts,
    datacontenttype=st.sampled_from(["application/json", "application/json; charset=utf-8", "application/x+json"]),
    extensions=st.dictionaries(extension_names, texts, max_size=3),
)


@given(events)
def test_an_event_comes_back_as_it_went(event: AnyEvent) -> None:
    message = CODEC.encode(event)

    assert CODEC.decode(arrival(message)) == event
    assert message.message_id == event.id


def test_the_topology_says_where_it_goes() -> None:
    message = CODEC.encode(Event("order.paid", Order(order_id=1, amount=Decimal("1.50")), "id-1"))

    assert (message.exchange, message.routing_key) == ("events", "paid")
    assert CODEC.decode(arrival(message)).data == Order(order_id=1, amount=Decimal("1.50"))


def test_bodies_over_the_declared_size_travel_compressed() -> None:
    long, short = CODEC.encode(Event("order.packed", "x" * 5000)), CODEC.encode(Event("order.packed", "x"))

    assert (arrival(long).properties.content_encoding, arrival(short).properties.content_encoding) == ("zstd", "")
    assert len(long.body) < 100
    assert CODEC.decode(arrival(long)).data == "x" * 5000


def test_json_that_is_text_already_is_checked_and_sent_as_it_stands() -> None:
    raw = b'{ "order_id": 1,\n "amount": "2" }'

    assert CODEC.encode_raw(Event("order.paid", raw)).body == raw
    with pytest.raises(InvalidPayload):
        CODEC.encode_raw(Event("order.paid", b'{"order_id": "x"}'))
    with pytest.raises(UndecodableBody):
        CODEC.encode_raw(Event("order.paid", b"{"))


# --- what is not sent ---


def test_data_that_does_not_fit_names_the_event() -> None:
    with pytest.raises(InvalidPayload, match=r"event id-1 of type 'order\.paid': .*order_id") as error:
        CODEC.encode(Event("order.paid", {"order_id": "hunter2", "amount": 1}, "id-1"))

    assert "hunter2" not in str(error.value)


def test_an_unknown_type_comes_with_the_nearest_known_one() -> None:
    with pytest.raises(UnknownEventType, match=r"did you mean 'order\.created'"):
        CODEC.encode(Event("order.craeted", {}))
    with pytest.raises(UnknownEventType, match="declare it under"):
        CODEC.encode(Event("zzz", {}))


def test_a_body_over_the_limit_is_not_sent_however_well_it_compresses() -> None:
    for kind in ("order.created", "order.packed"):
        with pytest.raises(PayloadTooLarge, match="PIPELINE_MAX_BODY"):
            CODEC.encode(Event(kind, "x" * MAX_BODY))


# --- what other programs send ---


def test_a_bare_message_is_an_event() -> None:
    event = CODEC.decode(foreign(b"[1]", app_id="legacy", timestamp=1))

    assert event == Event("order.created", [1], "id-1", "legacy", datetime.fromtimestamp(1, UTC))


def test_a_single_extension_among_few_headers_is_kept() -> None:
    assert CODEC.decode(foreign(headers={"cloudEvents_traceparent": "00-1"})).extensions == {"traceparent": "00-1"}
    assert CODEC.decode(foreign(headers={"x-death": [], "other": 1})).extensions == {}


def test_gzip_is_read_too() -> None:
    assert CODEC.decode(foreign(gzip.compress(b"[1]"), content_encoding="gzip")).data == [1]


@pytest.mark.parametrize(
    ("message", "error", "told"),
    [
        (foreign(message_id=""), MissingId, "no id"),
        (foreign(routing_key="no.such"), UnknownEventType, "no.such"),
        (foreign(type="no.such"), UnknownEventType, "no.such"),
        (foreign(b""), UndecodableBody, "empty"),
        (foreign(b"{"), UndecodableBody, "not JSON"),
        (foreign(content_type="text/plain"), UndecodableBody, "text/plain"),
        (foreign(content_type="application/octet-stream"), UndecodableBody, "octet-stream"),
        (foreign(content_encoding="br"), UndecodableBody, "br"),
        (foreign(content_encoding="gzip"), UndecodableBody, "can't be decompressed"),
        (foreign(b'"' + b"x" * MAX_BODY + b'"'), PayloadTooLarge, "PIPELINE_MAX_BODY"),
        (foreign(gzip.compress(bytes(MAX_BODY + 1)), content_encoding="gzip"), PayloadTooLarge, "PIPELINE_MAX_BODY"),
        (foreign(headers={"cloudEvents_time": "soon"}), UndecodableBody, "soon"),
        (foreign(timestamp=2**64 - 1), UndecodableBody, "no time"),
        (foreign(routing_key="paid"), UnknownEventType, "paid"),  # a routing key is no type when the two differ
        (foreign(b'{"order_id": 1}', type="order.paid"), InvalidPayload, "amount"),
        (Delivery(1, 1, False, "events", "order.created", b"\xff", b"{}"), ProtocolViolation, "properties"),
    ],
)
def test_what_can_not_be_read_is_refused_by_name(message: Delivery, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        CODEC.decode(message)


# --- structured mode ---


def structured(whole: Any, **properties: Any) -> Delivery:
    return foreign(
        json.dumps(whole).encode(),
        "whatever",
        **{"message_id": "", "content_type": "application/cloudevents+json; charset=utf-8", **properties},
    )


WHOLE = {
    "specversion": "1.0",
    "id": "id-9",
    "type": "order.paid",
    "source": "shop",
    "time": "2026-11-20T12:00:00Z",
    "subject": "order/1",
    "traceparent": "00-1",
    "datacontenttype": "application/json",
    "data": {"order_id": 1, "amount": "1.50"},
}


def test_a_structured_event_is_read_from_its_body() -> None:
    event = CODEC.decode(structured(WHOLE))

    assert event == Event(
        "order.paid",
        Order(order_id=1, amount=Decimal("1.50")),
        "id-9",
        "shop",
        datetime(2026, 11, 20, 12, 0, tzinfo=UTC),
        "order/1",
        extensions={"traceparent": "00-1"},
    )


def test_a_structured_event_may_be_compressed_and_its_data_base64() -> None:
    data = b64encode(b'{"order_id": 1, "amount": "1.50"}').decode()
    whole = {name: value for name, value in WHOLE.items() if name != "data"} | {"data_base64": data}
    packed = structured(whole, content_encoding="gzip")
    packed.body = gzip.compress(packed.body)

    assert CODEC.decode(packed) == CODEC.decode(structured(WHOLE))


def test_what_the_body_does_not_say_the_properties_do() -> None:
    whole = {"data": [1]}

    event = CODEC.decode(structured(whole, message_id="amqp", type="order.created"))

    assert (event.id, event.type, event.data) == ("amqp", "order.created", [1])


@pytest.mark.parametrize(
    ("whole", "error"),
    [
        ([WHOLE], UndecodableBody),
        ("text", UndecodableBody),
        ({**WHOLE, "id": ""}, MissingId),
        ({**WHOLE, "id": "x" * 300}, UndecodableBody),
        ({**WHOLE, "type": "no.such"}, UnknownEventType),
        ({**WHOLE, "time": 5}, UndecodableBody),
        ({**WHOLE, "time": {"a": 1}}, UndecodableBody),
        ({**WHOLE, "data": None}, InvalidPayload),
        ({**WHOLE, "data_base64": "?"}, UndecodableBody),
        ({**WHOLE, "data_base64": 7}, UndecodableBody),
        ({**WHOLE, "data_base64": ""}, UndecodableBody),
        ({**WHOLE, "datacontenttype": "text/xml"}, UndecodableBody),
        ({**WHOLE, "datacontenttype": "application/cloudevents+json"}, UndecodableBody),
    ],
)
def test_a_structured_event_that_is_none_is_refused_by_name(whole: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        CODEC.decode(structured(whole))


def test_a_structured_bomb_of_brackets_is_refused() -> None:
    body = b'{"data":' * 100_000

    with pytest.raises(UndecodableBody):
        CODEC.decode(foreign(body[:MAX_BODY], content_type="application/cloudevents+json"))


@given(st.binary(max_size=60), st.sampled_from(["application/json", "application/cloudevents+json"]), texts)
def test_any_body_is_read_or_refused_by_name(body: bytes, content_type: str, encoding: str) -> None:
    message = foreign(body, content_type=content_type, content_encoding=encoding[:8])

    try:
        CODEC.decode(message)
    except (UndecodableBody, PayloadTooLarge, UnknownEventType, MissingId):
        return
