"""Messages that are to arrive later. In: a message and when it is due. Out: the same, for the delay ladder.

A message is marked with its due time when it is made (`put_off`), and sent on its way when it is published
(`set_out`): whatever lies in between, an outbox or a broker that was away, is taken off its wait.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.errors import InvalidDelay, NoDelayLadder, ProtocolViolation
from pipeline.event import utc_now
from pipeline.message import DELAY_BACK_TO, DELAY_DUE, DELAY_MARK, DELAY_PREFIX, DELAY_TO, Message
from pipeline.properties import Properties, decode_properties, encode_properties
from pipeline.topology.delay import LONGEST, PREFIX, exchange_of, header_of, path_of
from pipeline.topology.model import Delay, duration_text

# Where a message that is put off waits to be published: no exchange has this name.
LADDER = PREFIX
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = 1_000_000  # µs


def due_time(after: float | timedelta | None, at: datetime | None) -> datetime | None:
    """When an event published now is due: `after` seconds (or a timedelta) from now, or `at`; None for at once.

    A time that has passed is at once, too. Raises: InvalidDelay.
    """
    if at is not None:
        if after is not None:
            raise InvalidDelay("after and at exclude each other; give one of them")
        if at.tzinfo is None:
            raise InvalidDelay(f"at={at!r} must be a datetime with a time zone, such as datetime.now(UTC)")
        return at.astimezone(UTC)
    if after is None:
        return None
    seconds = after.total_seconds() if isinstance(after, timedelta) else after
    if not math.isfinite(seconds) or seconds < 0:
        raise InvalidDelay(f"after={after!r} must be seconds or a timedelta, and not negative")
    if seconds > LONGEST:
        raise InvalidDelay(f"after={after!r} is more than a year, the longest delay there is")
    return utc_now() + timedelta(seconds=seconds)


def put_off(message: Message, due: datetime, delay: Delay | None) -> Message:
    """The message, to be published when `due`.

    Raises: NoDelayLadder when the topology declares none; InvalidDelay when it is longer than the longest.
    """
    _check(seconds_until(_microseconds(due)), delay, message.message_id)
    properties = decode_properties(message.properties)
    headers = {**properties.headers, DELAY_DUE: _microseconds(due), DELAY_TO: message.exchange}
    return _with_headers(message, properties, headers, LADDER, message.routing_key)


def way_back(queue: str, seconds: float) -> dict[str, Any]:
    """The headers of a message for `LADDER` that is to come to a work queue in so many seconds."""
    return {DELAY_DUE: _microseconds(utc_now() + timedelta(seconds=seconds)), DELAY_BACK_TO: queue}


def set_out(message: Message) -> Message:
    """A message of the ladder as it must be published now: to its first level, or to its exchange when it is due."""
    properties = decode_properties(message.properties)
    headers = {name: value for name, value in properties.headers.items() if not _is_level(name)}
    due, to, queue = (headers.get(name) for name in (DELAY_DUE, DELAY_TO, DELAY_BACK_TO))
    if not isinstance(due, int) or not (isinstance(to, str) or isinstance(queue, str)):
        raise ProtocolViolation(
            f"message {message.message_id!r} is for the delay ladder; it does not say when and where"
        )
    # Whole seconds, rounded up: it may be late by a part of a second, and is never early.
    path = path_of(min(max(0, seconds_until(due)), LONGEST))
    if path:
        way = {DELAY_MARK: True} | {header_of(level): level in path for level in range(path[0] + 1)}
        return _with_headers(message, properties, {**headers, **way}, exchange_of(path[0]), message.routing_key)
    plain = {name: value for name, value in headers.items() if not name.startswith(DELAY_PREFIX)}
    if isinstance(to, str):
        return _with_headers(message, properties, plain, to, message.routing_key)
    return _with_headers(message, properties, plain, "", str(queue))


def seconds_until(due: int) -> int:
    """Whole seconds, rounded up, until `due` (µs since the epoch); 0 and below when it has come."""
    return -((time.time_ns() // 1000 - due) // SECOND)


def _microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def _check(seconds: int, delay: Delay | None, event_id: str) -> None:
    if seconds <= 0:
        return
    if delay is None:
        raise NoDelayLadder(
            f"event {event_id}: the topology declares no delay ladder; add `delay: {{max: 30d}}` to a topology file "
            "and run `pipeline topology apply`"
        )
    if seconds > delay.longest:
        longest = duration_text(delay.longest)
        raise InvalidDelay(
            f"event {event_id}: a delay of {seconds} s is longer than the longest, {longest} (`delay: {{max: "
            f"{longest}}}` in the topology; a year, 366d, is the most)"
        )


def _with_headers(
    message: Message, properties: Properties, headers: Mapping[str, Any], exchange: str, routing_key: str
) -> Message:
    # A time to live of its own would let it expire before it is due.
    encoded = encode_properties(replace(properties, headers=headers, expiration=""))
    return Message(exchange, routing_key, message.body, encoded, message.message_id)


def _is_level(header: str) -> bool:
    return header.startswith(DELAY_PREFIX) and header.removeprefix(DELAY_PREFIX).isdecimal()
