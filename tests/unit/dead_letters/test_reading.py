"""What a message of a dead-letter queue tells, whoever put it there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import message
from pipeline.dead_letters.reading import UNKNOWN, UNREADABLE, read_dead_letter
from pipeline.message import Delivery
from tests.unit.dead_letters.samples import FIRST, LAST, PAYMENTS, WORKER_HEADERS, dead, death


def test_a_workers_letter_tells_everything() -> None:
    delivery = dead(WORKER_HEADERS, b'{"a": 1}', message_id="1", type="order.created", content_type="application/json")

    letter = read_dead_letter(delivery, PAYMENTS)

    assert (letter.id, letter.type, letter.subscription) == ("1", "order.created", "payments")
    assert (letter.reason, letter.error, letter.message) == ("exhausted", "app.CardStolen", "card refused")
    assert (letter.attempts, letter.redrives, letter.size) == (3, 0, 8)
    assert (letter.first_failure, letter.last_failure) == (FIRST, LAST)
    assert (letter.exchange, letter.routing_key) == ("events", "order.created")
    assert (letter.traceback, letter.body) == ("Traceback ...", b'{"a": 1}')
    assert [(past.attempt, past.error, past.at) for past in letter.history] == [
        (1, "ValueError", FIRST),
        (2, "ValueError", FIRST),
    ]
    assert letter.attributes == {"source": "shop"}
    assert letter.headers == {}


def test_without_details_the_same_is_told_in_less_room() -> None:
    letter = read_dead_letter(dead(WORKER_HEADERS, b"x" * 100), PAYMENTS, whole=False)

    assert (letter.error, letter.size, letter.attempts) == ("app.CardStolen", 100, 3)
    assert (letter.body, letter.traceback, letter.history) == (b"", "", ())


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("delivery_limit", "more than 7 times (the delivery limit of payments)"),
        ("rejected", "a consumer of payments rejected it"),
        ("expired", "it waited in payments for longer"),
        ("maxlen", "payments was full"),
        ("novelty", "for the reason 'novelty'"),
    ],
)
def test_the_brokers_own_letters_are_put_in_words(reason: str, words: str) -> None:
    letter = read_dead_letter(dead({"x-death": [death(reason)]}), PAYMENTS)

    assert (letter.reason, letter.error) == (reason, reason)
    assert words in letter.message
    assert (letter.first_failure, letter.last_failure) == (LAST, LAST)
    assert (letter.exchange, letter.routing_key) == ("events", "order.created")


def test_a_death_in_the_work_queue_counts_more_than_an_earlier_failure() -> None:
    # given an event that failed once, waited in a retry queue and then killed its worker
    headers = {name: value for name, value in WORKER_HEADERS.items() if name != message.REASON}
    headers["x-death"] = [death("delivery_limit"), death("expired", "payments.retry.1s")]

    letter = read_dead_letter(dead(headers), PAYMENTS)

    assert (letter.reason, letter.error) == ("delivery_limit", "delivery_limit")
    assert (letter.first_failure, letter.last_failure) == (FIRST, LAST)
    assert len(letter.history) == 2


def test_waiting_in_a_retry_queue_is_no_death() -> None:
    headers = WORKER_HEADERS | {"x-death": [death("expired", "payments.retry.1s")]}

    assert read_dead_letter(dead(headers), PAYMENTS).reason == "exhausted"


def test_a_message_that_says_nothing_is_shown_as_unknown() -> None:
    letter = read_dead_letter(dead({}), PAYMENTS)

    assert (letter.id, letter.type, letter.reason, letter.error) == ("", "", UNKNOWN, UNKNOWN)
    assert (letter.first_failure, letter.attempts, letter.history) == (None, 0, ())


def test_id_and_type_may_stand_in_cloudevents_headers() -> None:
    letter = read_dead_letter(dead({"cloudEvents:id": "7", "cloudEvents_type": "order.created"}), PAYMENTS)

    assert (letter.id, letter.type) == ("7", "order.created")


def test_properties_that_can_not_be_read_are_said_to_be_so() -> None:
    letter = read_dead_letter(Delivery(1, 0, True, "", "q", b"\x20\x00\x00\x00\x00\x09garbage", b"body"), PAYMENTS)

    assert (letter.reason, letter.body) == (UNREADABLE, b"body")
    assert "can't be read" in letter.message


def test_secrets_are_masked() -> None:
    headers = {"Authorization": "Bearer s3cret", "cloudEvents_authtoken": "s3cret", "deep": {"api-key": "s3cret"}}

    letter = read_dead_letter(dead(headers), PAYMENTS)

    assert "s3cret" not in repr(letter)
    assert letter.headers["Authorization"] == "***"


def test_the_fingerprint_ignores_how_often_it_was_looked_at() -> None:
    def fingerprint(headers: dict[str, Any], body: bytes = b"{}") -> bytes:
        return read_dead_letter(dead(headers, body, message_id="1"), PAYMENTS, whole=False).fingerprint

    first = fingerprint(WORKER_HEADERS)
    assert first == fingerprint(WORKER_HEADERS | {message.DELIVERY_COUNT: 12})
    assert first != fingerprint(WORKER_HEADERS, b"{ }")
    assert first != fingerprint(WORKER_HEADERS | {message.REDRIVES: 1})


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3),
    max_leaves=8,
)
_names = st.sampled_from([*WORKER_HEADERS, "x-death", message.REDRIVES, "cloudEvents_id"]) | st.text(max_size=20)


@given(st.dictionaries(_names, _values, max_size=12), st.binary(max_size=50))
def test_no_header_is_too_odd(headers: dict[str, Any], body: bytes) -> None:
    try:
        delivery = dead(headers, body)
    except ValueError:  # a text AMQP can't carry
        return

    letter = read_dead_letter(delivery, PAYMENTS)

    assert letter.body == body
    assert isinstance(letter.id, str)


@given(st.binary(max_size=80))
def test_no_bytes_are_too_odd(raw: bytes) -> None:
    assert read_dead_letter(Delivery(1, 0, True, "", "q", raw, b""), PAYMENTS).reason


@given(st.text() | st.recursive(st.none() | st.text(), lambda inner: st.lists(inner)).map(json.dumps))
def test_no_history_is_too_odd(text: str) -> None:
    read_dead_letter(dead({message.HISTORY: text.encode("utf-8", "replace").decode()}), PAYMENTS)
