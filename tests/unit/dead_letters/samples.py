"""Messages as a dead-letter queue holds them, for unit tests."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from pipeline import message
from pipeline.message import Delivery
from pipeline.properties import Properties, encode_properties
from pipeline.topology.load import load_text

PAYMENTS = load_text(
    "version: 1\n"
    "exchanges: {events: {type: topic}}\n"
    "events: {order.created: {exchange: events}}\n"
    "subscriptions: {payments: {events: [order.created], delivery_limit: 7}}\n"
).topology.subscriptions["payments"]

FIRST = datetime(2026, 11, 20, 10, 0, 0, tzinfo=UTC)
LAST = datetime(2026, 11, 20, 10, 5, 0, tzinfo=UTC)
HISTORY = [{"attempt": n, "at": FIRST.isoformat(), "error": "ValueError", "message": "no"} for n in (1, 2)]
WORKER_HEADERS: dict[str, Any] = {
    "cloudEvents_source": "shop",
    message.REASON: "exhausted",
    message.ERROR: "app.CardStolen",
    message.ERROR_MESSAGE: "card refused",
    message.TRACEBACK: "Traceback ...",
    message.ATTEMPT: 3,
    message.FIRST_FAILURE: FIRST.isoformat(),
    message.LAST_FAILURE: LAST.isoformat(),
    message.HISTORY: json.dumps(HISTORY),
    message.SUBSCRIPTION: "payments",
    message.EXCHANGE: "events",
    message.ROUTING_KEY: "order.created",
}


def death(reason: str, queue: str = "payments", **more: Any) -> dict[str, Any]:
    """An entry of `x-death`."""
    at = {"reason": reason, "queue": queue, "time": LAST, "exchange": "events", "routing-keys": ["order.created"]}
    return at | {"count": 1} | more


def dead(headers: dict[str, Any], body: bytes = b"{}", **properties: Any) -> Delivery:
    """A message with these headers and properties."""
    raw = encode_properties(Properties(headers=headers, **properties))
    return Delivery(1, 0, True, "", "payments.dlq", raw, body)
