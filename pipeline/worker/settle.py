"""Failures → retry queue or dead-letter queue. In: `Failed`. Out: the copy is confirmed, then the original is acked.

The copy keeps body and properties; the headers of this library tell what happened so far. The broker's own death
headers are stripped: with them in place it could take the retry for a cycle and drop it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from pipeline.amqp.publisher import Publisher
from pipeline.codec.delay import LADDER, way_back
from pipeline.event import utc_now
from pipeline.message import (
    ATTEMPT,
    BROKER_HEADERS,
    DELAY_BACK_TO,
    DELAY_DUE,
    DELAY_TO,
    ERROR,
    EXCHANGE,
    FIRST_FAILURE,
    FORCED,
    HISTORY,
    LAST_FAILURE,
    MORE_ROUTES,
    NOT_BEFORE,
    PREFIX,
    REASON,
    REPLAY,
    ROUTING_KEY,
    SUBSCRIPTION,
    TRACEBACK,
    Delivery,
    Message,
)
from pipeline.properties import Properties, encode_properties
from pipeline.retry import GiveUp, RetryLater, decide, failure_headers, rung
from pipeline.topology.model import Delay, Subscription
from pipeline.worker.work import Failed

# What a copy says when there is no room for more: its properties must fit into the one frame AMQP has for them.
ESSENTIAL = (
    ATTEMPT, NOT_BEFORE, REASON, ERROR, FIRST_FAILURE, LAST_FAILURE, SUBSCRIPTION, EXCHANGE, ROUTING_KEY,
    DELAY_DUE, DELAY_BACK_TO, REPLAY, FORCED,
)  # fmt: skip
WAY = 2048  # bytes of properties that the headers of all the ladder's levels need


@dataclass(frozen=True, slots=True)
class Settlement:
    """What was decided for one failed delivery: the copy to publish first, None when it is to be dropped."""

    failed: Failed
    decision: RetryLater | GiveUp
    copy: Message | None


def settle_failure(subscription: Subscription, failed: Failed, limit: int, delay: Delay | None = None) -> Settlement:
    """Decide, and write the copy that must be confirmed before the original is acked.

    `limit` is in bytes of encoded properties (`Publisher.properties_limit`); `delay` is the topology's delay ladder.
    """
    decision = decide(subscription.retry, failed.attempt, failed.failure)
    delivery = failed.delivery
    properties = delivery.readable  # the rest can't be copied; body and id are
    headers = clean_headers(properties.headers)
    now = utc_now()
    headers |= failure_headers(properties.headers, failed.attempt, failed.failure, now.isoformat())
    headers.setdefault(EXCHANGE, properties.headers.get(DELAY_TO) or delivery.exchange)
    headers.setdefault(ROUTING_KEY, delivery.routing_key)
    headers.pop(NOT_BEFORE, None)
    match decision:
        case RetryLater(rung_delay, wait):
            headers[ATTEMPT] = failed.attempt + 1
            if takes_ladder(delay, subscription, wait):
                return Settlement(failed, decision, _by_ladder(subscription, delivery, headers, wait, limit, delay))
            if wait > rung_delay:
                headers[NOT_BEFORE] = round((time.time() + wait) * 1000)
            target = subscription.retry_queue(rung_delay)
        case GiveUp(reason):
            if not subscription.dead_letter:
                return Settlement(failed, decision, None)
            headers[ATTEMPT] = failed.attempt
            headers[REASON] = reason
            headers[SUBSCRIPTION] = subscription.name
            if failed.failure.traceback:
                headers[TRACEBACK] = failed.failure.traceback
            target = subscription.dead_letter_queue
    return Settlement(failed, decision, _copy(delivery, properties, headers, target, limit))


def another_round(
    subscription: Subscription, delivery: Delivery, remaining: float, limit: int, delay: Delay | None = None
) -> Message:
    """The copy of a message that came before its time: it waits again, no attempt used up."""
    properties = delivery.properties
    headers = clean_headers(properties.headers)
    if takes_ladder(delay, subscription, remaining):
        return _by_ladder(subscription, delivery, headers, remaining, limit, delay)
    target = subscription.retry_queue(rung(subscription.retry, remaining))
    return _copy(delivery, properties, headers, target, limit)


def takes_ladder(delay: Delay | None, subscription: Subscription, wait: float) -> TypeGuard[Delay]:
    """Whether a retry waits in the topology's delay ladder: when it is longer than the subscription's own delays."""
    return delay is not None and wait > max(subscription.retry.delays, default=0.0)


async def publish_copies(publisher: Publisher, copies: Sequence[Message]) -> set[int]:
    """Publish; the indexes of those that are confirmed."""
    errors = await publisher.send(copies)
    return {index for index in range(len(copies)) if index not in errors}


def clean_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """The headers without the broker's own and without what a copy says anew."""
    return {
        name: value
        for name, value in headers.items()
        if not name.startswith(BROKER_HEADERS) and name not in (*MORE_ROUTES, f"{PREFIX}traceback", f"{PREFIX}reason")
    }


def _by_ladder(
    subscription: Subscription, delivery: Delivery, headers: dict[str, Any], wait: float, limit: int, delay: Delay
) -> Message:
    headers.pop(NOT_BEFORE, None)
    if wait > delay.longest:
        headers[NOT_BEFORE] = round((time.time() + wait) * 1000)
    headers |= way_back(subscription.queue, min(wait, delay.longest))
    copy = _copy(delivery, delivery.readable, headers, "", limit - WAY)
    return replace(copy, exchange=LADDER, routing_key=delivery.routing_key)


def _copy(delivery: Delivery, properties: Properties, headers: dict[str, Any], queue: str, limit: int) -> Message:
    encoded = b""
    for kept in _ever_fewer(headers):
        # An expiration would make the broker drop the copy in the middle of its wait.
        encoded = encode_properties(replace(properties, headers=kept, expiration=""))
        if len(encoded) <= limit:
            break
    return Message("", queue, delivery.body, encoded, properties.message_id)


def _ever_fewer(headers: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The headers, then without what can best be missed, down to a few short ones."""
    yield dict(headers)
    without = {name: value for name, value in headers.items() if name not in (TRACEBACK, HISTORY)}
    yield without
    yield {name: value for name, value in without.items() if name.startswith((PREFIX, "cloudEvents"))}
    short = {name: headers[name] for name in ESSENTIAL if name in headers}
    yield {name: value if isinstance(value, int) else str(value)[:255] for name, value in short.items()}
