"""What travels: an outbound message and an inbound delivery, free of any client library's types.

In: codec's bytes (outbound), the broker's frames (inbound). Out: values the rooms above pass on.
Header names below starting with `pipeline-` are this library's; they never reach a handler.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Set on retry copies and dead letters.
ATTEMPT = "pipeline-attempt"  # int, the number of the attempt this copy is for, from 1
NOT_BEFORE = "pipeline-not-before"  # int, ms since the epoch: earlier arrivals go round again
FIRST_FAILURE = "pipeline-first-failure"  # str, ISO 8601 UTC
LAST_FAILURE = "pipeline-last-failure"  # str, ISO 8601 UTC
ERROR = "pipeline-error"  # str, the kind of the last failure: an exception's qualified name or a reason word
ERROR_MESSAGE = "pipeline-error-message"  # str, bounded
TRACEBACK = "pipeline-traceback"  # str, bounded; dead letters only
HISTORY = "pipeline-history"  # str, JSON list of {attempt, at, error, message}, bounded, oldest first
REASON = "pipeline-reason"  # str: exhausted | rejected | undecodable | unknown_type | no_handler | invalid ...
SUBSCRIPTION = "pipeline-subscription"  # str, whose dead letter this is
EXCHANGE = "pipeline-exchange"  # str, where it was first published to
ROUTING_KEY = "pipeline-routing-key"  # str, with which key
REDRIVES = "pipeline-redrives"  # int, how often it was redriven
DELIVERY_COUNT = "x-delivery-count"  # int, set by quorum queues on redelivery

PREFIX = "pipeline-"


@dataclass(frozen=True, slots=True)
class Properties:
    """AMQP 0-9-1 basic properties as used here. `timestamp` is seconds since the epoch. Always persistent."""

    message_id: str = ""
    type: str = ""
    content_type: str = ""
    content_encoding: str = ""
    timestamp: int = 0
    app_id: str = ""
    correlation_id: str = ""
    headers: Mapping[str, Any] = field(default_factory=dict)
    priority: int | None = None
    expiration: str = ""
    reply_to: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One message to publish: `body` to `exchange` with `routing_key`; mandatory, persistent, confirmed."""

    exchange: str
    routing_key: str
    body: bytes
    properties: Properties


@dataclass(frozen=True, slots=True)
class Delivery:
    """One arrival on a subscription's queue.

    `tag` is the broker's delivery tag and `epoch` the consumer's life it belongs to (a tag of a past epoch is
    dead and must not be acked). `delivery_count` is the broker's count of earlier arrivals, 0 on the first.
    """

    tag: int
    epoch: int
    exchange: str
    routing_key: str
    redelivered: bool
    properties: Properties
    body: bytes

    @property
    def delivery_count(self) -> int:
        """How often the broker handed this message out before (0 on the first arrival)."""
        count = self.properties.headers.get(DELIVERY_COUNT, 0)
        return count if isinstance(count, int) else 0
