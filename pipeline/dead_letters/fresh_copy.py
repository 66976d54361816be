"""A dead letter's second life. Pure. In: the message as it lies there. Out: the copy for its work queue.

The copy has a whole retry budget again and keeps its past: the history, the first failure, where it came from. The
marks of RabbitMQ's dead-lettering go: with them, the broker may take the next death for a cycle and drop the message.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

from pipeline.codec.order_key import key_in_properties
from pipeline.dead_letters.reading import broker_sentence, died_in_broker, latest_death
from pipeline.errors import ProtocolViolation
from pipeline.message import (
    ATTEMPT,
    BROKER_HEADERS,
    ERROR,
    ERROR_MESSAGE,
    EXCHANGE,
    FIRST_FAILURE,
    HISTORY,
    LAST_FAILURE,
    MORE_ROUTES,
    NOT_BEFORE,
    REASON,
    REDRIVES,
    ROUTES,
    ROUTING_KEY,
    SUBSCRIPTION,
    TRACEBACK,
    Delivery,
    Message,
)
from pipeline.properties import Properties, encode_properties
from pipeline.retry import HISTORY_KEPT
from pipeline.topology.model import Subscription
from pipeline.topology.partitions import entrance
from pipeline.topology.slots import route_of

_OF_THIS_DEATH = frozenset({ATTEMPT, NOT_BEFORE, ERROR, ERROR_MESSAGE, TRACEBACK, REASON, LAST_FAILURE, SUBSCRIPTION})


def fresh_copy(delivery: Delivery, subscription: Subscription, now: datetime) -> Message:
    """The message to publish to the subscription's own work queue, past its neighbours' (default exchange).

    To an ordered subscription it goes by the exchange in front of its partitions, with the routing key it came with.
    """
    exchange, key = "", subscription.queue
    try:
        properties = delivery.properties
        fresh = _fresh(properties, subscription, now)
        if subscription.order_by:
            exchange, key = entrance(subscription), str(fresh.headers.get(ROUTING_KEY) or delivery.routing_key)[:255]
            fresh = _with_slot(fresh, delivery, subscription.order_by)
        encoded = encode_properties(fresh)
    except ProtocolViolation:  # what can't be read can't be changed either: it goes back as it is
        if subscription.order_by:
            exchange, key = entrance(subscription), delivery.routing_key
        return Message(exchange, key, delivery.body, delivery.raw_properties, "")
    except ValueError:  # another program's header that only it can write
        encoded = delivery.raw_properties
    return Message(exchange, key, delivery.body, encoded, properties.message_id)


def _fresh(properties: Properties, subscription: Subscription, now: datetime) -> Properties:
    headers = dict(properties.headers)
    kept = {
        name: value
        for name, value in headers.items()
        if name not in _OF_THIS_DEATH and name not in MORE_ROUTES and not name.startswith(BROKER_HEADERS)
    }
    history = _history(headers.get(HISTORY))
    death = latest_death(headers)
    if death is not None and died_in_broker(headers, death, subscription):
        at = death.at.isoformat() if death.at else ""
        history.append(_entry(headers.get(ATTEMPT), at, death.reason, broker_sentence(death, subscription)))
        kept.setdefault(FIRST_FAILURE, at or now.isoformat())
        kept.setdefault(EXCHANGE, death.exchange)
        kept.setdefault(ROUTING_KEY, death.routing_key)
    redrives = headers.get(REDRIVES)
    times = (redrives if isinstance(redrives, int) and redrives > 0 else 0) + 1
    history.append(_entry(0, now.isoformat(), "redriven", f"sent back to {subscription.queue}, time {times}"))
    kept[REDRIVES] = times
    kept[HISTORY] = json.dumps(history[-HISTORY_KEPT:], ensure_ascii=False)
    # A time to live of its own would let the copy expire on its way to a worker.
    return replace(properties, headers=kept, expiration="")


def _with_slot(fresh: Properties, delivery: Delivery, order_by: str) -> Properties:
    key = key_in_properties(delivery, order_by)
    if key is None:  # another program's message; it came without a slot, too
        return fresh
    return replace(fresh, headers={**fresh.headers, ROUTES: [route_of(order_by, key)]})


def _history(text: object) -> list[Any]:
    try:
        entries = json.loads(text) if isinstance(text, str) else []
    except (ValueError, RecursionError):
        return []
    return entries if isinstance(entries, list) else []


def _entry(attempt: object, at: str, error: str, message: str) -> dict[str, Any]:
    return {"attempt": attempt if isinstance(attempt, int) else 0, "at": at, "error": error, "message": message[:200]}
