"""A message of a dead-letter queue → `DeadLetter`. Pure. In: properties and body, however odd. Out: never an exception.

Two kinds arrive: copies that a worker sent, with this library's headers; and what RabbitMQ itself dead-lettered, which
tells only where and why in `x-death` (https://www.rabbitmq.com/docs/dlx#effects: the latest death first).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from pipeline.codec.envelope import OTHER_PREFIX, attribute
from pipeline.codec.envelope import PREFIX as ATTRIBUTE_PREFIX
from pipeline.dead_letters.letter import DeadLetter, PastFailure
from pipeline.dead_letters.printable import hide_secrets
from pipeline.errors import ProtocolViolation
from pipeline.message import (
    ATTEMPT,
    DELIVERY_COUNT,
    ERROR,
    ERROR_MESSAGE,
    EXCHANGE,
    FIRST_FAILURE,
    FORCED,
    HISTORY,
    LAST_FAILURE,
    PREFIX,
    REASON,
    REDRIVES,
    ROUTING_KEY,
    TRACEBACK,
    Delivery,
)
from pipeline.properties import Properties
from pipeline.topology.model import Subscription
from pipeline.topology.partitions import work_queues

DEATHS = "x-death"
COUNTS = (DELIVERY_COUNT, "x-acquired-count")  # grow with every delivery
_ATTRIBUTE_PREFIXES = (ATTRIBUTE_PREFIX, OTHER_PREFIX)
_NOT_OTHERS = (PREFIX, *_ATTRIBUTE_PREFIXES, *COUNTS)
HISTORY_READ = 1000  # entries; a worker keeps far fewer

UNREADABLE = "unreadable_properties"
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Death:
    """The latest death in `x-death`: RabbitMQ moved the message out of `queue` at `at`."""

    reason: str
    queue: str
    at: datetime | None
    exchange: str
    routing_key: str


def read_dead_letter(delivery: Delivery, subscription: Subscription, *, whole: bool = True) -> DeadLetter:
    """What the message tells. What it does not tell is empty, 0 or None.

    Without `whole` what takes room and time stays away: body, traceback, history, headers, attributes.
    """
    try:
        properties = delivery.properties
    except ProtocolViolation as violation:
        properties = Properties(headers={REASON: UNREADABLE, ERROR: UNREADABLE, ERROR_MESSAGE: str(violation)})
    headers = properties.headers
    death = latest_death(headers)
    if death is not None and died_in_broker(headers, death, subscription):
        reason = error = death.reason
        message, last_failure = broker_sentence(death, subscription), death.at
    else:
        reason = _text(headers.get(REASON)) or UNKNOWN
        error = _text(headers.get(ERROR)) or reason
        message, last_failure = _text(headers.get(ERROR_MESSAGE)), _time(headers.get(LAST_FAILURE))
    letter = DeadLetter(
        id=properties.message_id or attribute(properties, "id") or "",
        type=properties.type or attribute(properties, "type") or "",
        subscription=subscription.name,
        reason=reason,
        error=error,
        message=message,
        attempts=_number(headers.get(ATTEMPT)),
        first_failure=_time(headers.get(FIRST_FAILURE)) or last_failure,
        last_failure=last_failure,
        redrives=_number(headers.get(REDRIVES)),
        size=len(delivery.body),
        exchange=_text(headers.get(EXCHANGE)) or (death.exchange if death else ""),
        routing_key=_text(headers.get(ROUTING_KEY)) or (death.routing_key if death else ""),
        fingerprint=_fingerprint(delivery.body, properties),
        forced=headers.get(FORCED) is True,
    )
    return _with_details(letter, delivery, properties) if whole else letter


def _with_details(letter: DeadLetter, delivery: Delivery, properties: Properties) -> DeadLetter:
    headers = properties.headers
    others = {name: value for name, value in headers.items() if not name.startswith(_NOT_OTHERS)}
    return replace(
        letter,
        traceback=_text(headers.get(TRACEBACK)),
        history=read_history(headers.get(HISTORY)),
        attributes=_attributes(headers),
        headers=hide_secrets(others),
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        body=delivery.body,
    )


def latest_death(headers: Mapping[str, Any]) -> Death | None:
    """The newest entry of `x-death`; None without one."""
    deaths = headers.get(DEATHS)
    if not isinstance(deaths, Sequence) or not deaths or not isinstance(deaths[0], Mapping):
        return None
    newest = deaths[0]
    keys = newest.get("routing-keys")
    routing_key = keys[0] if isinstance(keys, Sequence) and keys else ""
    return Death(
        _text(newest.get("reason")) or UNKNOWN,
        _text(newest.get("queue")),
        _time(newest.get("time")),
        _text(newest.get("exchange")),
        _text(routing_key),
    )


def died_in_broker(headers: Mapping[str, Any], death: Death | None, subscription: Subscription) -> bool:
    """Whether RabbitMQ put it here. A worker's copy may also carry deaths: those of its waits in retry queues."""
    return death is not None and (death.queue in work_queues(subscription) or REASON not in headers)


def broker_sentence(death: Death, subscription: Subscription) -> str:
    """What a death in the broker means, for people."""
    match death.reason:
        case "delivery_limit":
            return (
                f"a worker died or lost its connection while holding it, more than {subscription.delivery_limit} times "
                f"(the delivery limit of {death.queue})"
            )
        case "rejected":
            return f"a consumer of {death.queue} rejected it without asking for another delivery"
        case "expired":
            return f"it waited in {death.queue} for longer than the queue's or its own time to live"
        case "maxlen":
            return f"{death.queue} was full, and it was the oldest message there"
        case other:
            return f"RabbitMQ moved it out of {death.queue} for the reason {other!r}"


def read_history(text: object) -> tuple[PastFailure, ...]:
    """The failures in a history header, oldest first; what can't be read is left out."""
    try:
        entries = json.loads(text) if isinstance(text, str) else []
    except (ValueError, RecursionError):
        return ()
    if not isinstance(entries, list):
        return ()
    return tuple(
        PastFailure(
            _number(entry.get("attempt")),
            _time(entry.get("at")),
            _text(entry.get("error")),
            _text(entry.get("message")),
        )
        for entry in entries[-HISTORY_READ:]
        if isinstance(entry, dict)
    )


def _attributes(headers: Mapping[str, Any]) -> dict[str, str]:
    found = {
        name[len(ATTRIBUTE_PREFIX) :]: _text(value)
        for name, value in headers.items()
        if name.startswith(_ATTRIBUTE_PREFIXES)
    }
    return hide_secrets(found)


def _fingerprint(body: bytes, properties: Properties) -> bytes:
    """A digest of what tells one letter from another, without RabbitMQ's counts, which grow with every look."""
    headers = properties.headers
    told = (
        properties.message_id,
        properties.type,
        properties.timestamp,
        *map(headers.get, (REASON, ERROR, LAST_FAILURE, REDRIVES, HISTORY)),
        headers.get(DEATHS),
    )
    digest = blake2b(body, digest_size=16)
    digest.update(repr(told).encode("utf-8", "surrogatepass"))
    return digest.digest()


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case bytes() | bytearray():
            return value.decode("utf-8", "replace")
        case _:
            return str(value)


def _number(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _time(value: object) -> datetime | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        return None
