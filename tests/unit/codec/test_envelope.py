"""CloudEvents attributes ↔ AMQP properties: both prefixes are read; nothing can be smuggled in or break a reader."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.codec.envelope import (
    EnvelopeWriter,
    attribute,
    event_id,
    event_time,
    event_type,
    extensions,
)
from pipeline.errors import InvalidPayload, MissingId, UndecodableBody
from pipeline.event import AnyEvent, Event
from pipeline.message import ROUTING_KEY, Delivery
from pipeline.properties import Properties, decode_properties, encode_properties

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def event(**attributes: Any) -> AnyEvent:
    return replace(Event("order.created", {}, "id-1", "shop", NOON), **attributes)


def written(given_event: AnyEvent, encoding: str = "") -> Properties:
    return decode_properties(EnvelopeWriter(given_event.type).write(given_event, encoding))


def delivery(routing_key: str = "key", **properties: Any) -> Delivery:
    return Delivery(1, 1, False, "events", routing_key, encode_properties(Properties(**properties)), b"{}")


# --- writing ---


def test_the_core_attributes_travel_as_amqp_has_them() -> None:
    found = written(event(subject="order/1", dataschema="https://x/y", extensions={"traceparent": "00-1"}), "zstd")

    assert found == Properties(
        message_id="id-1",
        type="order.created",
        content_type="application/json",
        content_encoding="zstd",
        timestamp=int(NOON.timestamp()),
        headers={
            "cloudEvents_specversion": "1.0",
            "cloudEvents_source": "shop",
            "cloudEvents_time": "2026-11-20T12:00:00+00:00",
            "cloudEvents_subject": "order/1",
            "cloudEvents_dataschema": "https://x/y",
            "cloudEvents_traceparent": "00-1",
        },
    )


@pytest.mark.parametrize(
    "bad",
    [
        event(id=""),
        event(id="x" * 256),
        event(id="ä" * 128),
        event(id="a\nb"),
        event(id="a\x00b"),
        event(id="\x1b[31mred"),
        event(id="\u202eright to left"),
        event(id="\ud800"),
        event(subject="\ud800"),
        event(source="\udcff"),
        event(datacontenttype="x" * 256),
        event(extensions={"x" * 300: "v"}),
        event(extensions={"id": "another"}),
        event(extensions={"source": "somebody else"}),
        event(extensions={"time": "1999-01-01T00:00:00Z"}),
        event(extensions={"specversion": "0.3"}),
    ],
    ids=lambda bad: ascii((bad.id[:12], *bad.extensions)),
)
def test_what_can_not_travel_is_refused(bad: AnyEvent) -> None:
    with pytest.raises(InvalidPayload, match="can't be written"):
        written(bad)


@pytest.mark.parametrize("name", ["pipeline-attempt", "x-death", "pipeline-reason"])
def test_an_extension_never_becomes_a_header_of_another_meaning(name: str) -> None:
    headers = written(event(extensions={name: "3"}, subject="pipeline-attempt\r\nx-death: 1")).headers

    assert name not in headers
    assert all(each.startswith("cloudEvents_") for each in headers)


def test_a_source_is_written_the_same_however_many_there_are() -> None:
    writer = EnvelopeWriter("order.created")
    first = writer.write(event(source="shop"))

    for number in range(3000):  # more than are remembered
        assert writer.write(event(source="shop")) == first
        writer.write(event(source=f"shop {number}"))


@pytest.mark.parametrize(
    "moment",
    [
        NOON.replace(microsecond=123456),
        datetime(1969, 7, 20, 20, 17, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2106, 2, 8, tzinfo=UTC),
        datetime(2026, 3, 29, 2, 30, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    ],
)
def test_any_moment_of_the_calendar_comes_back_exact(moment: datetime) -> None:
    assert event_time(written(event(time=moment))) == moment


# --- reading ---


@pytest.mark.parametrize("prefix", ["cloudEvents_", "cloudEvents:"])
def test_both_prefixes_of_the_binding_are_read(prefix: str) -> None:
    headers = {
        f"{prefix}{name}": value
        for name, value in {
            "id": "id-9",
            "type": "order.paid",
            "source": "shop",
            "time": "2026-11-20T12:00:00Z",
            "traceparent": "00-1",
            "sequence": 7,
        }.items()
    }
    found = delivery(headers=headers)

    assert event_id(found) == "id-9"
    assert event_type(found) == "order.paid"
    assert attribute(found.properties, "source") == "shop"
    assert event_time(found.properties) == NOON
    assert extensions(found.properties) == {"traceparent": "00-1", "sequence": "7"}


def test_amqps_own_properties_go_before_headers() -> None:
    found = delivery(message_id="amqp", type="amqp", headers={"cloudEvents_id": "header", "cloudEvents_type": "header"})

    assert (event_id(found), event_type(found)) == ("amqp", "amqp")


def test_a_type_that_nobody_says_is_the_routing_key() -> None:
    assert event_type(delivery("order.created")) == "order.created"


def test_from_a_retry_queue_such_a_message_keeps_its_type() -> None:
    # it comes through the default exchange, whose routing keys are names of queues
    assert event_type(delivery("payments", headers={ROUTING_KEY: "order.created"})) == "order.created"


def test_a_message_without_an_id_is_named() -> None:
    with pytest.raises(MissingId, match="'key'"):
        event_id(delivery())


@pytest.mark.parametrize("value", ["x" * 256, "ä" * 128, "x" * 100_000])
def test_an_id_that_is_too_long_is_refused(value: str) -> None:
    with pytest.raises(UndecodableBody, match="at most 255") as error:
        event_id(delivery(headers={"cloudEvents_id": value}))

    assert len(str(error.value)) < 200


@pytest.mark.parametrize("value", ["x" * 255, "ä" * 127])
def test_an_id_may_be_as_long_as_amqp_has_it(value: str) -> None:
    assert event_id(delivery(headers={"cloudEvents_id": value})) == value


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-20T12:00:00Z", NOON),
        ("2026-11-20T12:00:00", NOON),  # without an offset: taken for UTC
        ("2026-11-20T13:00:00.000+01:00", NOON),
        ("2026-11-20", NOON.replace(hour=0)),
    ],
)
def test_times_are_read_and_come_out_in_utc(text: str, moment: datetime) -> None:
    found = event_time(Properties(headers={"cloudEvents_time": text}))

    assert found == moment
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "12:00", "2026-13-01", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-12:00", "5" * 999],
)
def test_a_time_that_is_none_is_named(text: str) -> None:
    with pytest.raises(UndecodableBody, match="no ISO 8601 time") as error:
        event_time(Properties(headers={"cloudEvents_time": text}))

    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("timestamp", "moment"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (int(NOON.timestamp()), NOON),
        (int(NOON.timestamp()) * 1000, NOON),  # milliseconds, as some programs write it
    ],
)
def test_without_a_time_the_timestamp_is_taken(timestamp: int, moment: datetime) -> None:
    assert event_time(Properties(timestamp=timestamp)) == moment


@pytest.mark.parametrize("timestamp", [2**62, 2**64 - 1, 253_402_300_800_000])
def test_a_timestamp_beyond_the_calendar_is_named(timestamp: int) -> None:
    with pytest.raises(UndecodableBody, match="no time"):
        event_time(Properties(timestamp=timestamp))


header_values = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=9) | st.binary(max_size=9)
)
names = st.sampled_from(["id", "type", "source", "time", "subject", "dataschema", "x", ""])
hostile = st.dictionaries(
    st.builds(lambda prefix, name: prefix + name, st.sampled_from(["cloudEvents_", "cloudEvents:", ""]), names),
    header_values | st.lists(header_values, max_size=2) | st.dictionaries(names, header_values, max_size=2),
    max_size=8,
)


@given(hostile, st.integers(0, 2**64 - 1))
def test_headers_of_any_type_give_texts_or_a_named_error(headers: dict[str, Any], timestamp: int) -> None:
    found = Properties(timestamp=timestamp, headers=headers)
    message = Delivery(1, 1, False, "", "key", b"", b"{}")
    message.use(found, b"{}")

    assert isinstance(event_type(message), str)
    assert all(isinstance(value, str) for value in extensions(found).values())
    with suppress(MissingId, UndecodableBody):
        assert isinstance(event_id(message), str)
    with suppress(UndecodableBody):
        assert event_time(found).tzinfo is UTC
