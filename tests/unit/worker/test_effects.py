"""What a handler may return, and what becomes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import delete, insert

from pipeline import Context, Event, Publish, Result, Upsert
from pipeline.errors import InvalidPayload, PayloadTooLarge, UnknownEventType
from pipeline.properties import decode_properties
from pipeline.store.writes import Effects
from pipeline.worker.effects import EffectsBuilder, derived_id
from tests.unit.worker.models import NotATable, PaymentRow, PaymentTaken
from tests.unit.worker.works import CODEC, no_rows

EVENT = Event("order.created", {"order_id": 7}, "order-7")
TAKEN = Publish("payment.taken", {"order_id": 7})


def build(value: Any, context: Context | None = None, event: Event[Any] = EVENT) -> Effects:
    """The effects of a handler of `payments` that returned `value`."""
    return EffectsBuilder("payments", CODEC, CODEC.write_json).build(event, value, context)


def test_nothing_leaves_only_the_inbox_row() -> None:
    assert build(None) == Effects("order-7", "order.created")


@pytest.mark.parametrize(
    "write",
    [
        PaymentRow(order_id=7),
        Upsert(PaymentRow(order_id=7)),
        insert(PaymentRow).values(order_id=7),
        delete(PaymentRow),
    ],
)
def test_rows_and_statements_are_written(write: Any) -> None:
    for value in (write, [write], (write,), [write, None]):
        effects = build(value)
        assert list(effects.writes) == [write]
        assert effects.result is None
        assert list(effects.outgoing) == []


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ({"a": [1, None]}, {"a": [1, None]}),
        ([1, 2], [1, 2]),
        ((), []),
        ([], []),
        ([None], [None]),
        (0, 0),
        (False, False),
        ("", ""),
        (PaymentTaken(order_id=7), {"order_id": 7, "amount": "1"}),
        (NotATable(order_id=7), {"order_id": 7}),
    ],
)
def test_any_other_value_is_a_json_result(value: Any, stored: Any) -> None:
    effects = build(value)
    assert effects.result is not None
    assert json.loads(effects.result) == stored
    assert not effects.writes
    assert not effects.outgoing


def test_rows_and_follow_ups_may_come_together() -> None:
    row = PaymentRow(order_id=7)
    effects = build([TAKEN, row, Publish("order.noted", "paid")])

    assert list(effects.writes) == [row]
    assert [json.loads(out.body) for out in effects.outgoing] == [{"order_id": 7, "amount": "1"}, "paid"]


def test_what_the_context_published_goes_out_with_what_is_returned() -> None:
    context = Context("payments", "order-7", 1, no_rows)
    context.publish("order.noted", "first", subject="s")
    effects = build([TAKEN], context)

    assert [out.routing_key for out in effects.outgoing] == ["order.noted", "payment.taken"]
    assert build(None, context).outgoing[0].message_id == effects.outgoing[0].message_id
    assert build({"a": 1}, context).result == b'{"a":1}'


def test_a_follow_up_is_an_event_that_says_what_caused_it() -> None:
    (out,) = build(TAKEN).outgoing
    properties = decode_properties(out.properties)

    assert (out.exchange, out.routing_key) == ("events", "payment.taken")
    assert properties.message_id == out.message_id == derived_id("payments", "order-7", 0)
    assert properties.headers["cloudEvents_causationid"] == "order-7"
    assert properties.headers["cloudEvents_source"] == "payments"


def test_ids_of_follow_ups_are_the_same_whenever_the_event_is_handled_again() -> None:
    first, again = (build([TAKEN, TAKEN, Publish("order.noted", 1, id="mine")]).outgoing for _ in range(2))
    other = build([TAKEN], event=Event("order.created", {}, "order-8")).outgoing

    ids = [out.message_id for out in first]
    assert ids == [out.message_id for out in again]
    assert len(set(ids)) == 3
    assert ids[2] == "mine"
    assert other[0].message_id not in ids
    assert derived_id("payments", "order-7", 0) != derived_id("inventory", "order-7", 0)
    # Known by heart: it must not change from one version to the next, for retries cross updates.
    assert derived_id("payments", "order-7", 0) == "d6c4ab96e3ec9eb9996caea1a938400c"


@pytest.mark.parametrize("value", [[PaymentRow(order_id=7), {"a": 1}], [TAKEN, 1], (1, Upsert(PaymentRow(order_id=7)))])
def test_rows_and_plain_values_do_not_mix(value: Any) -> None:
    with pytest.raises(InvalidPayload, match="mixes rows or Publish with other values"):
        build(value)


def test_a_result_stands_beside_rows_and_follow_ups() -> None:
    row = PaymentRow(order_id=7)
    effects = build([row, TAKEN, Result({"paid": 7})])
    assert (list(effects.writes), effects.result, len(effects.outgoing)) == ([row], b'{"paid":7}', 1)
    assert build(Result(None)).result == b"null"


def test_an_event_has_one_result() -> None:
    with pytest.raises(InvalidPayload, match="returned 2 Results; an event has one"):
        build([Result(1), Result(2)])


def test_values_without_a_json_form_are_refused() -> None:
    with pytest.raises(InvalidPayload, match="no JSON form"):
        build(object())


@pytest.mark.parametrize(
    ("publish", "error"),
    [
        (Publish("payment.takn", {}), UnknownEventType),
        (Publish("payment.taken", {"order_id": "x"}), InvalidPayload),
        (Publish("order.noted", "x" * (1024 * 1024)), PayloadTooLarge),
        (Publish("order.noted", 1, id="x" * 256), InvalidPayload),
    ],
)
def test_follow_ups_are_checked_like_published_events(publish: Publish, error: type[Exception]) -> None:
    with pytest.raises(error):
        build(publish)
