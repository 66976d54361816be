"""Failures → retries or the end: bounded, never early, and told in headers whatever the failure looks like."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import (
    EventError,
    InvalidPayload,
    MissingId,
    PayloadTooLarge,
    StoreError,
    UndecodableBody,
    UnknownEventType,
)
from pipeline.field_table import encode_table
from pipeline.message import ERROR, ERROR_MESSAGE, FIRST_FAILURE, HISTORY, LAST_FAILURE
from pipeline.retry import (
    HISTORY_KEPT,
    KIND_KEPT,
    MESSAGE_KEPT,
    TRACEBACK_KEPT,
    Failure,
    GiveUp,
    HandlerTimeout,
    NoHandler,
    Reject,
    Retry,
    RetryLater,
    decide,
    failure_headers,
    failure_of,
    rung,
)
from pipeline.topology.model import RetryPolicy

NOW = "2026-11-20T12:00:00+00:00"
FAILED = Failure("ValueError", "card refused")
POLICY = RetryPolicy(attempts=5, delays=(1.0, 5.0, 30.0))

delays = st.lists(st.integers(1, 100_000), max_size=6).map(lambda each: tuple(each))  # whole numbers: sums are exact
policies = st.builds(RetryPolicy, attempts=st.integers(1, 30), delays=delays)
ladders = policies.filter(lambda policy: bool(policy.delays))


# --- what follows ---


@given(policies)
def test_attempts_are_bounded(policy: RetryPolicy) -> None:
    attempt = 1
    while isinstance(decide(policy, attempt, FAILED), RetryLater):
        attempt += 1
        assert attempt <= policy.attempts

    assert decide(policy, attempt, FAILED) == GiveUp("exhausted")
    assert attempt == (policy.attempts if policy.delays else 1)


def test_each_attempt_waits_for_its_delay_and_the_last_delay_repeats() -> None:
    found = [decide(POLICY, attempt, FAILED) for attempt in (1, 2, 3, 4, 5)]

    assert found == [RetryLater(1, 1), RetryLater(5, 5), RetryLater(30, 30), RetryLater(30, 30), GiveUp("exhausted")]


@given(ladders, st.integers(0, 1_000_000))
def test_a_wait_is_never_early_and_late_by_the_shortest_delay_at_most(policy: RetryPolicy, wait: int) -> None:
    policy = RetryPolicy(2, policy.delays)
    found = decide(policy, 1, Failure("Retry", "", after=wait))
    assert isinstance(found, RetryLater)
    assert found.wait == wait

    # The first round is what was decided; whoever arrives early is sent round again for what remains.
    waited = found.delay
    rounds = 1
    while waited < wait:
        waited += rung(policy, wait - waited)
        rounds += 1

    assert wait <= waited <= wait + min(policy.delays)
    assert found.delay in policy.delays
    assert rounds <= wait // min(policy.delays) + 1


@given(ladders, st.integers(1, 40), st.floats(0, 1e6))
def test_a_wait_asked_for_does_not_buy_attempts(policy: RetryPolicy, attempt: int, after: float) -> None:
    found = decide(policy, attempt, Failure("Retry", "", after=after))

    assert isinstance(found, RetryLater) == (attempt < policy.attempts)


@given(policies, st.integers(1, 40), st.sampled_from(["rejected", "undecodable", "invalid"]))
def test_what_no_retry_can_mend_is_given_up_at_once(policy: RetryPolicy, attempt: int, reason: str) -> None:
    assert decide(policy, attempt, Failure("Reject", "", reason=reason, after=1)) == GiveUp(reason)


# --- what an exception stands for ---


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Reject("no"), "rejected"),
        (NoHandler("no"), "no_handler"),
        (UnknownEventType("no"), "unknown_type"),
        (MissingId("no"), "missing_id"),
        (PayloadTooLarge("no"), "too_large"),
        (InvalidPayload("no"), "invalid"),
        (UndecodableBody("no"), "undecodable"),
        (EventError("no"), "invalid"),
        (Retry("please"), ""),
        (HandlerTimeout("slow"), ""),
        (StoreError("full"), ""),
        (ValueError("bug"), ""),
        (RecursionError(), ""),
    ],
)
def test_only_what_retrying_can_not_mend_has_a_reason(error: Exception, reason: str) -> None:
    failure = failure_of(error)

    assert failure.reason == reason
    assert bool(failure.traceback) == (not reason)


def test_a_failure_tells_kind_message_and_place() -> None:
    try:
        raise KeyError("sku")
    except KeyError as error:
        failure = failure_of(error)

    assert failure.kind == "KeyError"
    assert failure.message == "'sku'"
    assert "test_retry.py" in failure.traceback
    assert failure_of(Reject("no")).kind == "pipeline.retry.Reject"


@pytest.mark.parametrize(("after", "seconds"), [(None, None), (0, 0), (1.5, 1.5), (timedelta(minutes=2), 120.0)])
def test_a_handler_may_say_when(after: float | timedelta | None, seconds: float | None) -> None:
    assert failure_of(Retry("later", after=after)).after == seconds


@pytest.mark.parametrize("after", [-1, -0.001, float("nan"), float("inf"), timedelta(days=-1), timedelta(days=4000)])
def test_a_wait_that_can_not_be_is_an_error_of_the_handler(after: float | timedelta) -> None:
    with pytest.raises(ValueError, match="between 0 and a year"):
        Retry("later", after=after)


class Untellable(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


class NotText(Exception):
    def __str__(self) -> Any:
        return 7


def nested_error(depth: int) -> Exception:
    error = ValueError("first")
    for number in range(depth):
        following = ValueError(str(number))
        following.__cause__ = error
        error = following
    return error


@pytest.mark.parametrize(
    "error",
    [
        Untellable(),
        NotText(),
        ValueError("\ud800 from os.fsdecode \udcff"),
        ValueError("x" * 1_000_000),
        type("Long" * 1000, (Exception,), {})("x"),
        nested_error(500),
        ExceptionGroup("many", [ValueError(str(number)) for number in range(500)]),
    ],
    ids=lambda error: type(error).__name__[:20],
)
def test_any_exception_can_be_told_in_headers(error: Exception) -> None:
    failure = failure_of(error)
    headers = failure_headers({}, 1, failure, NOW)

    assert len(failure.kind) <= KIND_KEPT
    assert len(failure.message) <= MESSAGE_KEPT
    assert len(failure.traceback) <= TRACEBACK_KEPT
    encode_table({**headers, "pipeline-traceback": failure.traceback})


# --- what is told ---


def test_headers_tell_of_the_first_and_the_last_failure() -> None:
    first = failure_headers({}, 1, Failure("KeyError", "sku"), "first")
    second = failure_headers(first, 2, FAILED, "second")

    assert second == {
        ERROR: "ValueError",
        ERROR_MESSAGE: "card refused",
        FIRST_FAILURE: "first",
        LAST_FAILURE: "second",
        HISTORY: second[HISTORY],
    }
    assert json.loads(second[HISTORY]) == [
        {"attempt": 1, "at": "first", "error": "KeyError", "message": "sku"},
        {"attempt": 2, "at": "second", "error": "ValueError", "message": "card refused"},
    ]


def test_the_history_keeps_the_newest_and_does_not_grow() -> None:
    headers: dict[str, Any] = {}
    sizes = []
    for attempt in range(1, 200):
        headers = failure_headers(headers, attempt, Failure("E" * KIND_KEPT, "\x00" * MESSAGE_KEPT), NOW)
        sizes.append(len(headers[HISTORY]))

    assert [each["attempt"] for each in json.loads(headers[HISTORY])] == list(range(200 - HISTORY_KEPT, 200))
    assert sizes[-1] - sizes[HISTORY_KEPT] < 100
    assert sizes[-1] < 40_000  # together with all else it has to fit into one frame of 131,072 bytes


hostile_histories = (
    st.none()
    | st.integers()
    | st.binary(max_size=20)
    | st.text(max_size=20)
    | st.sampled_from(["[" * 50_000, "[" * 60_000 + "]" * 60_000, '{"a":' * 10_000, "1" * 5000, "[1]" + " " * 70_000])
    | st.lists(st.none() | st.text(max_size=5) | st.dictionaries(st.text(max_size=3), st.integers()), max_size=60).map(
        json.dumps
    )
    | st.just(json.dumps(["x" * 100] * 1000))
)


@given(hostile_histories, st.integers(1, 9))
def test_a_history_of_somebody_elses_making_does_no_harm(history: Any, attempt: int) -> None:
    headers = failure_headers({HISTORY: history, FIRST_FAILURE: history}, attempt, FAILED, NOW)

    found = json.loads(headers[HISTORY])
    assert found[-1] == {"attempt": attempt, "at": NOW, "error": "ValueError", "message": "card refused"}
    assert len(found) <= HISTORY_KEPT
    assert len(headers[HISTORY]) < 70_000
