"""The copy of a failed message: where it goes, what its headers tell, and that it always can be written."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Reject, Retry, message
from pipeline.amqp.frames import USUAL_FRAME_MAX, properties_limit
from pipeline.message import Delivery
from pipeline.properties import Properties, decode_properties, encode_properties
from pipeline.retry import GiveUp, RetryLater, failure_of
from pipeline.topology.load import load_text
from pipeline.worker.settle import Settlement, another_round, settle_failure
from pipeline.worker.work import Failed
from tests.unit.worker.works import PAYMENTS, delivery

LIMIT = properties_limit(USUAL_FRAME_MAX)
BROKERS = {
    "x-death": [{"queue": "payments.retry.1s", "reason": "expired", "count": 1}],
    "x-first-death-queue": "payments.retry.1s",
    "x-last-death-reason": "expired",
    "x-delivery-count": 3,
    "x-acquired-count": 4,
}
OTHERS = {"cloudEvents_source": "/shop", "x-tenant": "north"}


def failed(error: BaseException, attempt: int = 1, limit: int = LIMIT, **facts: Any) -> Settlement:
    """What is decided when the delivery with these properties fails with `error`."""
    properties = Properties(**{"message_id": "order-7", "type": "order.created", **facts})
    came = delivery(properties=encode_properties(properties), body=b'{"order_id": 7}')
    return settle_failure(PAYMENTS, Failed(came, failure_of(error), attempt, "order-7", "order.created"), limit)


def copy_of(settlement: Settlement) -> Properties:
    """The properties of the copy."""
    assert settlement.copy is not None
    return decode_properties(settlement.copy.properties)


def test_a_failure_goes_to_the_retry_queue_of_its_attempt() -> None:
    first, second = failed(ValueError("no"), 1), failed(ValueError("no"), 2)

    assert [each.decision for each in (first, second)] == [RetryLater(1, 1), RetryLater(5, 5)]
    assert first.copy is not None
    assert second.copy is not None
    assert (first.copy.exchange, first.copy.routing_key) == ("", "payments.retry.1s")
    assert second.copy.routing_key == "payments.retry.5s"
    assert first.copy.body == b'{"order_id": 7}'


def test_a_retry_copy_tells_what_happened_and_counts_the_attempt() -> None:
    properties = copy_of(failed(ValueError("no money"), 1, content_type="application/json", headers=OTHERS))

    assert (properties.message_id, properties.type, properties.content_type) == (
        "order-7",
        "order.created",
        "application/json",
    )
    headers = dict(properties.headers)
    assert {name: headers.pop(name) for name in OTHERS} == OTHERS
    at = headers.pop(message.LAST_FAILURE)
    assert headers.pop(message.FIRST_FAILURE) == at
    history = json.loads(headers.pop(message.HISTORY))
    assert history == [{"attempt": 1, "at": at, "error": "ValueError", "message": "no money"}]
    assert headers == {
        message.ATTEMPT: 2,
        message.ERROR: "ValueError",
        message.ERROR_MESSAGE: "no money",
        message.EXCHANGE: "events",
        message.ROUTING_KEY: "order.created",
    }


def test_the_last_attempt_ends_in_the_dead_letter_queue() -> None:
    # Given a message whose two attempts before failed as well
    once = failed(ValueError("first"), 1)
    twice = failed(KeyError("second"), 2, headers=copy_of(once).headers)
    # When the third fails
    third = failed(OSError("third"), 3, headers=copy_of(twice).headers)

    # Then it is a dead letter that tells why, where, how often, when first and last
    assert third.decision == GiveUp("exhausted")
    assert third.copy is not None
    assert third.copy.routing_key == "payments.dlq"
    headers = copy_of(third).headers
    assert headers[message.REASON] == "exhausted"
    assert headers[message.SUBSCRIPTION] == "payments"
    assert headers[message.ATTEMPT] == 3
    assert headers[message.FIRST_FAILURE] == copy_of(once).headers[message.FIRST_FAILURE]
    assert headers[message.ERROR] == "OSError"
    assert "OSError: third" in headers[message.TRACEBACK]
    assert [each["error"] for each in json.loads(headers[message.HISTORY])] == ["ValueError", "KeyError", "OSError"]
    assert (headers[message.EXCHANGE], headers[message.ROUTING_KEY]) == ("events", "order.created")


def test_what_can_never_succeed_is_a_dead_letter_at_once() -> None:
    settlement = failed(Reject("stolen card"))
    assert settlement.decision == GiveUp("rejected")
    assert copy_of(settlement).headers[message.ATTEMPT] == 1
    assert message.TRACEBACK not in copy_of(settlement).headers


def test_a_retry_may_ask_for_its_own_wait() -> None:
    before = time.time() * 1000
    longer = failed(Retry(after=12))
    assert longer.copy is not None
    assert longer.copy.routing_key == "payments.retry.5s"
    not_before = copy_of(longer).headers[message.NOT_BEFORE]
    assert before + 11_999 <= not_before <= time.time() * 1000 + 12_001
    assert message.NOT_BEFORE not in copy_of(failed(Retry(after=5))).headers


def test_a_message_that_came_too_early_goes_round_again_with_the_attempt_it_has() -> None:
    headers = {**OTHERS, **BROKERS, message.ATTEMPT: 2, message.NOT_BEFORE: 123}
    came = delivery(properties=encode_properties(Properties(message_id="order-7", headers=headers)))
    for remaining, queue in ((0.2, "payments.retry.1s"), (4.9, "payments.retry.1s"), (60, "payments.retry.5s")):
        copy = another_round(PAYMENTS, came, remaining, LIMIT)
        assert copy.routing_key == queue
        assert decode_properties(copy.properties).headers == {**OTHERS, message.ATTEMPT: 2, message.NOT_BEFORE: 123}


@pytest.mark.parametrize("attempt", [1, 3])
def test_the_brokers_own_headers_do_not_travel(attempt: int) -> None:
    # With them the broker could take a retry for a cycle and drop it.
    headers = copy_of(failed(ValueError("no"), attempt, headers={**OTHERS, **BROKERS})).headers
    assert not headers.keys() & BROKERS.keys()
    assert headers.keys() >= OTHERS.keys()


def test_an_expiration_does_not_travel() -> None:
    assert copy_of(failed(ValueError("no"), expiration="1000")).expiration == ""


def test_what_a_former_life_said_is_said_anew() -> None:
    former = {message.REASON: "exhausted", message.TRACEBACK: "long ago", message.NOT_BEFORE: 1}
    assert not copy_of(failed(ValueError("no"), 1, headers=former)).headers.keys() & former.keys()


def test_without_a_dead_letter_queue_there_is_no_copy() -> None:
    text = "version: 1\nexchanges:\n  e: {type: topic}\nevents:\n  a: {exchange: e}\nsubscriptions:\n"
    text += "  audit: {events: [a], dead_letter: false, retry: {attempts: 1}}\n"
    audit = load_text(text).topology.subscriptions["audit"]
    settlement = settle_failure(audit, Failed(delivery(), failure_of(ValueError("no")), 1), LIMIT)
    assert settlement.decision == GiveUp("exhausted")
    assert settlement.copy is None


def test_unreadable_properties_keep_the_body() -> None:
    came = delivery(properties=b"\xff\xff\xff", body=b"body")
    copy = settle_failure(PAYMENTS, Failed(came, failure_of(Reject("unreadable")), 1), LIMIT).copy
    assert copy is not None
    assert copy.body == b"body"
    assert decode_properties(copy.properties).headers[message.REASON] == "rejected"


@pytest.mark.parametrize("size", [4096 - 20, LIMIT])
@pytest.mark.parametrize(
    "headers",
    [
        {"x-own": "x" * 130_000},
        {f"x-{number}": "x" * 300 for number in range(400)},
        {"cloudEvents_subject": "x" * 130_000},
        {message.EXCHANGE: "x" * 130_000, message.ROUTING_KEY: ["x" * 1000] * 100},
        {message.HISTORY: json.dumps([{"error": "x" * 200}] * 600), message.FIRST_FAILURE: "x" * 5000},
        {message.ATTEMPT: "many", message.REDRIVES: "x" * 100_000},
    ],
)
def test_a_copy_always_fits_into_its_frame(headers: dict[str, Any], size: int) -> None:
    # A frame that is too large costs the connection, and so would the same message again and again.
    try:
        raise ValueError("ä" * 10_000)
    except ValueError as error:
        settlement = failed(error, 3, limit=size, headers=headers)
    assert settlement.copy is not None
    assert len(settlement.copy.properties) <= size
    written = copy_of(settlement)
    assert written.message_id == "order-7"
    assert written.headers[message.REASON] == "exhausted"
    assert written.headers[message.ERROR] == "ValueError"


header_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
known = st.sampled_from([value for name, value in vars(message).items() if name.isupper() and isinstance(value, str)])


@given(
    headers=st.dictionaries(known | st.text(max_size=20), header_values, max_size=6),
    text=st.text(st.characters(), max_size=50),
    attempt=st.integers(1, 2**63 - 1),
)
def test_no_header_and_no_error_can_keep_a_failure_from_being_settled(
    headers: dict[str, Any], text: str, attempt: int
) -> None:
    came = Delivery(1, 1, False, "events", "key", encode_properties(Properties(headers=headers)), b"")
    settlement = settle_failure(PAYMENTS, Failed(came, failure_of(ValueError(text)), attempt), LIMIT)
    assert settlement.copy is not None
    decode_properties(settlement.copy.properties)
    decode_properties(another_round(PAYMENTS, came, 1, LIMIT).properties)
