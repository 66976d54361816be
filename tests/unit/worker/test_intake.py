"""Intake: every delivery has an outcome, whatever its bytes."""

from __future__ import annotations

import json
import time
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import message
from pipeline.codec import from_annotation
from pipeline.properties import Properties, encode_properties
from pipeline.topology.model import RetryPolicy, Subscription
from pipeline.worker.intake import Intake, Sorted
from pipeline.worker.registry import Handler, inspect_handler
from tests.unit.worker.models import Careless, PaymentTaken
from tests.unit.worker.test_registry import plain
from tests.unit.worker.works import CODEC, PAYMENTS, delivery


def intake(subscription: Subscription = PAYMENTS) -> Intake:
    """An intake with handlers of order.created (anything), payment.taken (its model) and order.careless."""
    handler: Handler = inspect_handler(plain)
    payloads = {
        "order.created": from_annotation(Any),
        "payment.taken": CODEC.payload("payment.taken"),
        "order.careless": from_annotation(Careless),
    }
    return Intake(subscription, CODEC, dict.fromkeys(payloads, handler), payloads)


def properties(**facts: Any) -> bytes:
    """Encoded properties of a good event, with `facts` changed."""
    return encode_properties(Properties(**{"message_id": "order-7", "type": "order.created", **facts}))


def outcome(found: Sorted) -> str:
    """How the one delivery ended: "work", "early", or why it failed."""
    assert len(found.works) + len(found.failed) + len(found.early) == 1
    if found.failed:
        return found.failed[0].failure.reason or found.failed[0].failure.kind
    return "work" if found.works else "early"


@pytest.mark.parametrize(
    ("facts", "body", "expected"),
    [
        ({}, b'{"order_id": 7}', "work"),
        ({"type": ""}, b"1", "work"),  # the routing key says it
        ({"type": "payment.taken"}, b'{"order_id": 7}', "work"),
        ({"type": "payment.taken"}, b'{"order_id": "x"}', "invalid"),
        ({"type": "order.careless"}, b'{"order_id": 0}', "ZeroDivisionError"),  # may pass another time, so: a retry
        ({"type": "order.noted"}, b"1", "no_handler"),
        ({"type": "order.lost"}, b"1", "unknown_type"),
        ({"message_id": ""}, b"1", "missing_id"),
        ({}, b"", "undecodable"),
        ({}, b"{", "undecodable"),
        ({}, b"\xff", "undecodable"),
        ({}, b"[" * 100_000, "undecodable"),
        ({"content_type": "image/png"}, b"1", "undecodable"),
        ({"content_encoding": "br"}, b"1", "undecodable"),
        ({"content_encoding": "gzip"}, b"1", "undecodable"),
        ({"content_encoding": "gzip"}, zlib.compress(b" " * 5_000_000, wbits=31), "too_large"),
        ({"timestamp": 2**64 - 1}, b"1", "undecodable"),
        ({"timestamp": 2**60}, b"1", "undecodable"),
        ({"headers": {"cloudEvents_time": "noon"}}, b"1", "undecodable"),
        ({"headers": {"cloudEvents_time": 7}}, b"1", "undecodable"),
        ({"content_type": "application/cloudevents+json"}, b"[]", "undecodable"),
        ({"content_type": "application/cloudevents+json", "type": "", "message_id": ""}, b"{}", "missing_id"),
    ],
)
def test_every_delivery_has_an_outcome(facts: dict[str, Any], body: bytes, expected: str) -> None:
    assert outcome(intake().sort([delivery(properties=properties(**facts), body=body)])) == expected


@pytest.mark.parametrize("raw", [b"", b"\0", b"\xff\xff", b"\x20\x00\x00\x00\x00\xff", properties()[:-1]])
def test_unreadable_properties_are_an_outcome(raw: bytes) -> None:
    found = intake().sort([delivery(properties=raw)])
    assert outcome(found) == "undecodable"
    assert (found.failed[0].event_id, found.failed[0].attempt) == ("", 1)


def test_a_bad_one_does_not_hold_up_its_neighbours() -> None:
    good = properties()
    batch = [delivery(1, good), delivery(2, b"\xff\xff"), delivery(3, good, b"{"), delivery(4, good)]
    found = intake().sort(batch)

    assert [work.delivery.tag for work in found.works] == [1, 4]
    assert [failed.delivery.tag for failed in found.failed] == [2, 3]
    assert found.failed[1].event_id == "order-7"


@pytest.mark.parametrize(
    ("header", "attempt"), [(2, 2), (1, 1), ("two", 1), (0, 1), (-3, 1), (None, 1), (2.5, 1), ([2], 1)]
)
def test_the_attempt_is_what_the_header_says_if_it_makes_sense(header: object, attempt: int) -> None:
    found = intake().sort([delivery(properties=properties(headers={message.ATTEMPT: header}))])
    assert found.works[0].attempt == attempt


def test_what_comes_before_its_time_waits_on() -> None:
    now = round(time.time() * 1000)

    def at(not_before: object, subscription: Subscription = PAYMENTS) -> Sorted:
        came = delivery(properties=properties(headers={message.NOT_BEFORE: not_before}))
        return intake(subscription).sort([came])

    assert outcome(at(now - 1)) == "work"
    assert outcome(at(now + 10)) == "work"  # clocks differ a little
    assert outcome(at("later")) == "work"
    assert outcome(at(2**62)) == "work"  # nobody asks for a wait of a million years
    early = at(now + 5000)
    assert outcome(early) == "early"
    assert 4 < early.early[0][1] <= 5
    # Without a ladder there is nowhere to wait.
    no_ladder = replace(PAYMENTS, retry=RetryPolicy(1, ()))
    assert outcome(at(now + 5000, no_ladder)) == "work"


def test_the_event_is_what_the_message_says() -> None:
    headers = {"cloudEvents_source": "/shop", "cloudEvents_time": "2026-11-20T10:00:00+01:00", "cloudEvents_trace": "t"}
    body = json.dumps({"order_id": 7, "amount": "2.50"}).encode()
    found = intake().sort([delivery(properties=properties(type="payment.taken", headers=headers), body=body)])
    event = found.works[0].event

    assert (event.id, event.type, event.source) == ("order-7", "payment.taken", "/shop")
    assert event.data == PaymentTaken(order_id=7, amount="2.50")  # type: ignore[arg-type]
    assert event.time.isoformat() == "2026-11-20T09:00:00+00:00"
    assert event.extensions == {"trace": "t"}


@given(raw=st.binary(max_size=60), body=st.binary(max_size=20), key=st.text(max_size=5))
def test_no_bytes_can_stop_intake(raw: bytes, body: bytes, key: str) -> None:
    outcome(intake().sort([delivery(properties=raw, body=body, key=key)]))


def test_an_unreadable_header_costs_the_headers_but_not_the_id() -> None:
    raw = properties(headers={"x": "y"}).replace(b"\x01xS", b"\x01x?")  # a type of value that nobody knows
    found = intake().sort([delivery(properties=raw)])
    assert outcome(found) == "undecodable"
    assert (found.failed[0].event_id, found.failed[0].event_type) == ("order-7", "order.created")
