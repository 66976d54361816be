"""What travels: an outbound message and an inbound delivery, free of any client library's types.

In: codec's bytes (outbound), the broker's frames (inbound). Out: values the rooms above pass on.
Header names below starting with `pipeline-` are this library's; they never reach a handler.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import ProtocolViolation
from pipeline.properties import Properties, decode_properties, readable_properties

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
# Set on what `pipeline events replay` copies from the event log.
REPLAY = "pipeline-replay"  # str, the replay's id
FORCED = "pipeline-replay-forced"  # true: to be processed again, once per replay
# Set on what waits in the delay ladder (topology/delay.py), beside `pipeline-delay-<level>`.
DELAY_PREFIX = "pipeline-delay-"
DELAY_DUE = "pipeline-delay-due"  # int, µs since the epoch
DELAY_TO = "pipeline-delay-to"  # str, the exchange it goes to when it is due
DELAY_BACK_TO = "pipeline-delay-back-to"  # str, instead: the work queue a retry goes back to
DELAY_MARK = "pipeline-delay-ladder"  # true, on all that goes through the ladder
# More routing keys, by which RabbitMQ routes as well; a copy for one queue must not carry somebody's.
ROUTES = "CC"  # list of str; for ordered subscriptions the event's slots (topology/slots.py)
MORE_ROUTES = (ROUTES, "BCC")
DELIVERY_COUNT = "x-delivery-count"  # int, set by quorum queues on redelivery

PREFIX = "pipeline-"
# Beginnings of what RabbitMQ adds, which a copy must not carry again, or it could be taken for a cycle and dropped; and
# of the way through the delay ladder, which is over when there is something to copy.
BROKER_HEADERS = ("x-death", "x-first-death-", "x-last-death-", DELIVERY_COUNT, "x-acquired-count", DELAY_PREFIX)


@dataclass(frozen=True, slots=True)
class Message:
    """One message to publish: `body` to `exchange` with `routing_key`; mandatory, persistent, confirmed.

    `properties` are the encoded bytes (`encode_properties`), so that nobody on the way encodes them again.
    """

    exchange: str
    routing_key: str
    body: bytes
    properties: bytes
    message_id: str


class Delivery:
    """One arrival on a subscription's queue. Treat it as a value; its properties are decoded when first asked for.

    `tag` is the broker's delivery tag and `epoch` the consumer's life it belongs to: a tag of a past epoch is dead and
    must not be acked. Not a dataclass: a hundred thousand a second are made.
    """

    __slots__ = ("_properties", "body", "epoch", "exchange", "raw_properties", "redelivered", "routing_key", "tag")

    def __init__(
        self,
        tag: int,
        epoch: int,
        redelivered: bool,
        exchange: str,
        routing_key: str,
        raw_properties: bytes,
        body: bytes,
    ) -> None:
        self.tag = tag
        self.epoch = epoch
        self.redelivered = redelivered
        self.exchange = exchange
        self.routing_key = routing_key
        self.raw_properties = raw_properties
        self.body = body
        self._properties: Properties | None = None

    @property
    def properties(self) -> Properties:
        """The decoded properties. Raises: ProtocolViolation when they can't be read."""
        if self._properties is None:
            self._properties = decode_properties(self.raw_properties)
        return self._properties

    @property
    def readable(self) -> Properties:
        """What can be read of the properties: an unreadable header costs the headers, not the id."""
        return self._properties or readable_properties(self.raw_properties)

    def use(self, properties: Properties, body: bytes) -> None:
        """Replace what was received by what it was unwrapped to."""
        self._properties = properties
        self.body = body

    @property
    def delivery_count(self) -> int:
        """How often a quorum queue handed this message out before (0 at first, or when it can't be read)."""
        if not self.redelivered:
            return 0
        try:
            count = self.properties.headers.get(DELIVERY_COUNT, 0)
        except ProtocolViolation:
            return 0
        return count if isinstance(count, int) else 0

    def __repr__(self) -> str:
        return f"Delivery(tag={self.tag}, epoch={self.epoch}, {self.routing_key!r}, {len(self.body)} bytes)"
