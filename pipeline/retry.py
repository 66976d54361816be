"""Attempt + failure → what happens next, as data. Pure: no broker, no clock of its own.

In: the subscription's retry policy, the number of the attempt and how it failed. Out: `RetryLater` or `GiveUp`.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pipeline.errors import (
    EventError,
    InvalidPayload,
    MissingId,
    PayloadTooLarge,
    UndecodableBody,
    UnknownEventType,
)
from pipeline.message import ERROR, ERROR_MESSAGE, FIRST_FAILURE, HISTORY, LAST_FAILURE
from pipeline.topology.model import RetryPolicy

MESSAGE_KEPT = 2000  # characters of an error's message
KIND_KEPT = 200  # characters of an exception's qualified name
TRACEBACK_KEPT = 8000  # characters of a traceback, its end: where it happened
HISTORY_KEPT = 20  # failures remembered, the newest
HISTORY_READ = 65_536  # characters of a history taken on; we never write so many


class Retry(Exception):
    """Raised by a handler: try again, after `after` (seconds or a timedelta) or when the policy says.

    Uses up an attempt.
    """

    def __init__(self, reason: str = "", after: float | timedelta | None = None) -> None:
        super().__init__(reason or "the handler asked for another attempt")
        self.after = after.total_seconds() if isinstance(after, timedelta) else after
        if self.after is not None and not 0 <= self.after <= 366 * 86400:
            raise ValueError(f"Retry(after={after!r}): must be between 0 and a year")


class Reject(Exception):
    """Raised by a handler: this event can never succeed; dead-letter it now."""


class HandlerTimeout(Exception):
    """The handler took longer than the subscription's timeout."""


class NoHandler(EventError):
    """The subscription's worker has no handler for this event type."""


@dataclass(frozen=True, slots=True)
class Failure:
    """How one attempt failed. `kind` is the exception's qualified name."""

    kind: str
    message: str
    traceback: str = ""
    reason: str = ""  # of a failure that no retry can mend: rejected, undecodable, ...
    after: float | None = None  # seconds the handler asked for


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Wait on the ladder's rung of `delay` seconds; do not run before `wait` seconds have passed in all."""

    delay: float
    wait: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """To the dead-letter queue, for `reason`."""

    reason: str


_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (Reject, "rejected"),
    (NoHandler, "no_handler"),
    (UnknownEventType, "unknown_type"),
    (MissingId, "missing_id"),
    (PayloadTooLarge, "too_large"),
    (InvalidPayload, "invalid"),
    (UndecodableBody, "undecodable"),
    (EventError, "invalid"),
)


def failure_of(error: BaseException) -> Failure:
    """The failure an exception stands for."""
    reason = next((word for kind, word in _REASONS if isinstance(error, kind)), "")
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    message = _told(lambda: str(error))[:MESSAGE_KEPT]
    trace = "" if reason else _told(lambda: "".join(traceback.format_exception(error)))[-TRACEBACK_KEPT:]
    after = error.after if isinstance(error, Retry) else None
    return Failure(_told(lambda: name)[:KIND_KEPT], message, trace, reason, after)


def _told(tell: Callable[[], str]) -> str:
    """What an exception says of itself, as text that a header can carry. Never fails, though a user's exception may."""
    try:
        return tell().encode("utf-8", "replace").decode()  # half surrogate pairs stand for undecodable file names
    except Exception as error:  # noqa: BLE001 - see above
        return f"(can't be told: {type(error).__name__})"


def decide(policy: RetryPolicy, attempt: int, failure: Failure) -> RetryLater | GiveUp:
    """What follows the failure of attempt number `attempt` (from 1)."""
    if failure.reason:
        return GiveUp(failure.reason)
    if attempt >= policy.attempts or not policy.delays:
        return GiveUp("exhausted")
    if failure.after is not None:
        return RetryLater(rung(policy, failure.after), failure.after)
    delay = policy.delays[min(attempt, len(policy.delays)) - 1]
    return RetryLater(delay, delay)


def rung(policy: RetryPolicy, wait: float) -> float:
    """The ladder's delay for a wait of `wait` seconds: the longest that is not over it, else the shortest.

    A longer wait takes several rounds, so an event is never early by more than clocks differ, and is late by the
    shortest delay at most.
    """
    fitting = [delay for delay in policy.delays if delay <= wait]
    return max(fitting) if fitting else min(policy.delays)


def failure_headers(headers: Mapping[str, Any], attempt: int, failure: Failure, now: str) -> dict[str, Any]:
    """The headers that tell of all failures so far, this one the last; `now` is ISO 8601 UTC."""
    return {
        ERROR: failure.kind,
        ERROR_MESSAGE: failure.message,
        FIRST_FAILURE: headers.get(FIRST_FAILURE) or now,
        LAST_FAILURE: now,
        HISTORY: _append_history(headers.get(HISTORY), attempt, failure, now),
    }


def _append_history(text: object, attempt: int, failure: Failure, now: str) -> str:
    try:
        history = json.loads(text) if isinstance(text, str) and len(text) <= HISTORY_READ else []
    except (ValueError, RecursionError):
        history = []
    if not isinstance(history, list):
        history = []
    history.append({"attempt": attempt, "at": now, "error": failure.kind, "message": failure.message[:200]})
    return json.dumps(history[-HISTORY_KEPT:], ensure_ascii=False)
