"""The copy that goes back to work: a whole retry budget, its past kept, RabbitMQ's marks gone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline import message
from pipeline.dead_letters.fresh_copy import fresh_copy
from pipeline.event import utc_now
from pipeline.message import Delivery
from pipeline.properties import Properties, decode_properties
from pipeline.retry import HISTORY_KEPT
from pipeline.topology.slots import route_of
from tests.unit.dead_letters.samples import FIRST, LAST, PAYMENTS, WORKER_HEADERS, dead, death


def _copy(delivery: Delivery) -> Properties:
    return decode_properties(fresh_copy(delivery, PAYMENTS, utc_now()).properties)


def test_it_goes_to_its_own_work_queue_only() -> None:
    copy = fresh_copy(dead(WORKER_HEADERS, b"body", message_id="1"), PAYMENTS, utc_now())

    assert (copy.exchange, copy.routing_key, copy.body, copy.message_id) == ("", "payments", b"body", "1")


def test_to_an_ordered_subscription_it_goes_by_its_slot() -> None:
    ordered = replace(PAYMENTS, order_by="data.sku", partitions=4)
    headers = WORKER_HEADERS | {"pipeline-key-data.sku": "a", "CC": ["somebody's"], "BCC": ["other"]}

    copy = fresh_copy(dead(headers, message_id="1", type="order.created"), ordered, utc_now())
    found = decode_properties(copy.properties).headers

    assert copy.exchange == "payments.partitions"
    assert found["CC"] == [route_of("data.sku", "a")]
    assert "BCC" not in found


def test_it_takes_nobody_elses_routes_along() -> None:
    found = _copy(dead(WORKER_HEADERS | {"CC": ["other"], "BCC": ["another"]}, message_id="1")).headers

    assert not {"CC", "BCC"} & found.keys()


def test_the_budget_is_whole_and_the_past_is_kept() -> None:
    headers = WORKER_HEADERS | {message.NOT_BEFORE: 5, message.DELIVERY_COUNT: 9, "mine": "kept"}

    copy = _copy(dead(headers, message_id="1", type="order.created", timestamp=7, priority=3, reply_to="r"))

    assert set(copy.headers) == {
        "cloudEvents_source", "mine", message.FIRST_FAILURE, message.HISTORY, message.EXCHANGE, message.ROUTING_KEY,
        message.REDRIVES,
    }  # fmt: skip
    assert copy.headers[message.FIRST_FAILURE] == FIRST.isoformat()
    assert copy.headers[message.REDRIVES] == 1
    assert (copy.message_id, copy.type, copy.timestamp, copy.priority, copy.reply_to) == (
        "1", "order.created", 7, 3, "r",
    )  # fmt: skip
    errors = [entry["error"] for entry in json.loads(copy.headers[message.HISTORY])]
    assert errors == ["ValueError", "ValueError", "redriven"]


def test_what_the_broker_alone_knew_enters_the_history() -> None:
    marks = {"x-death": [death("delivery_limit")], "x-first-death-queue": "payments", "x-last-death-reason": "x"}

    copy = _copy(dead({**marks, message.REDRIVES: 4}))

    history = json.loads(copy.headers[message.HISTORY])
    assert [entry["error"] for entry in history] == ["delivery_limit", "redriven"]
    assert copy.headers[message.FIRST_FAILURE] == LAST.isoformat()
    assert (copy.headers[message.EXCHANGE], copy.headers[message.ROUTING_KEY]) == ("events", "order.created")
    assert copy.headers[message.REDRIVES] == 5
    assert not [name for name in copy.headers if name.startswith("x-")]


def test_a_time_to_live_does_not_let_the_copy_expire() -> None:
    assert _copy(dead(WORKER_HEADERS, expiration="1000")).expiration == ""


def test_the_history_stays_bounded() -> None:
    delivery = dead(WORKER_HEADERS)
    for _ in range(HISTORY_KEPT + 5):
        delivery = Delivery(1, 0, True, "", "q", fresh_copy(delivery, PAYMENTS, utc_now()).properties, b"")

    assert len(json.loads(delivery.properties.headers[message.HISTORY])) == HISTORY_KEPT
    assert delivery.properties.headers[message.REDRIVES] == HISTORY_KEPT + 5


def test_properties_that_can_not_be_read_go_back_as_they_are() -> None:
    broken = b"\x20\x00\x00\x00\x00\x09garbage"

    copy = fresh_copy(Delivery(1, 0, True, "", "q", broken, b"body"), PAYMENTS, utc_now())

    assert (copy.properties, copy.body) == (broken, b"body")


@given(st.dictionaries(st.sampled_from([*WORKER_HEADERS, "x-death", message.REDRIVES]), st.text() | st.integers(0, 9)))
def test_any_letter_has_a_copy(headers: dict[str, Any]) -> None:
    assert _copy(dead(headers)).headers[message.REDRIVES] >= 1
