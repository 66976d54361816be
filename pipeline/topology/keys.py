"""Every key a topology file may hold: the one definition that the reader, the JSON Schema and the docs come from."""

from __future__ import annotations

from pipeline.topology.kinds import (
    Choice,
    Constant,
    Flag,
    Free,
    Key,
    ListOf,
    MapOf,
    Real,
    Record,
    Size,
    Span,
    Text,
    Whole,
)
from pipeline.topology.slots import SLOTS

VERSION = 1

# RabbitMQ keeps TTLs in 32 bits of milliseconds: 49 days and some hours.
MAX_TTL_MS = 2**32 - 1
MAX_BYTES = 2**63 - 1
MAX_COUNT = 2**31 - 1
MAX_PREFETCH = 2**16 - 1  # basic.qos carries 16 bits
DAY_MS = 86_400_000

DEFAULT_ATTEMPTS = 5
DEFAULT_DELAYS_MS = (1_000, 5_000, 30_000, 120_000)
DEFAULT_PREFETCH = 1000
DEFAULT_TIMEOUT_MS = 30_000
DEFAULT_CONCURRENCY = 100
DEFAULT_PARTITIONS = 4

_WORD = "[A-Za-z_][A-Za-z0-9_]*"
_MODULE = rf"{_WORD}(\.{_WORD})*"

NAME = Text("a name without control characters")
# Subscriptions name databases, files and policies too.
SUBSCRIPTION_NAME = Text(
    "a name of letters, digits, '.', '_' and '-'", r"[A-Za-z0-9][A-Za-z0-9._-]*", "payments", max_bytes=240
)
EVENT_NAME = Text("an event type of words and dots", r"[^\x00-\x20\x7f*#]+", "order.created")
EVENT_CHOICE = Text("an event type, or a pattern with * and #", r"[^\x00-\x20\x7f]+", "order.created")
ROUTING_KEY = Text("a routing key without wildcards", r"[^\x00-\x1f\x7f*#]*", "orders.v1")
BINDING_KEY = Text("a routing key", r"[^\x00-\x1f\x7f]*", "order.*")
MODEL = Text("a class as package.module:Class", rf"{_MODULE}:{_MODULE}", "workers.models:OrderCreated")
MODULE = Text("a module path", _MODULE, "workers.payments")
ORDER_KEY = Text(
    "type, subject, source or a path such as data.sku",
    r"type|subject|source|data(\.[^\x00-\x20\x7f.]+)+",
    "data.sku",
    max_bytes=128,
)
START = Text("first, a duration such as 2h, a time or an offset of the log", example="first", max_bytes=64)
REGEX = Text("a regular expression", r"[^\x00-\x1f\x7f]+", "^orders")

_ARGUMENTS = Key("arguments", Free(), "Further RabbitMQ arguments, by RabbitMQ's own names (`x-…`).")

EXCHANGE = Record(
    (
        Key(
            "type",
            Choice(
                ("topic", "direct", "fanout", "headers"), r"x-[a-z0-9-]+", "a plugin's type such as x-consistent-hash"
            ),
            "How it routes.",
            default="topic",
        ),
        Key("durable", Flag(), "Survives a restart of the broker.", default=True),
        Key("auto_delete", Flag(), "Deleted by the broker with its last binding.", default=False),
        Key("internal", Flag(), "Takes messages from other exchanges only.", default=False),
        Key("alternate_exchange", NAME, "Where messages go that no queue would take."),
        _ARGUMENTS,
    )
)

EVENT = Record(
    (
        Key("exchange", NAME, "Where it is published. Needed when several exchanges are declared."),
        Key("routing_key", ROUTING_KEY, "The key it is published with. Left out: the event's name."),
        Key("model", MODEL, "The pydantic or SQLModel class its data must fit. Not together with `schema`."),
        Key(
            "schema",
            Text("a path", max_bytes=4096, example="schemas/order.json"),
            "The JSON Schema file its data must fit, relative to this file. Not together with `model`.",
        ),
        Key("compress_over", Size(0, MAX_BYTES), "Bodies above this size travel compressed; 0 never.", default=0),
    )
)

_DELAY = Span(1, MAX_TTL_MS)

RETRY = Record(
    (
        Key("attempts", Whole(1, 10_000), "How often an event is tried, the first time included; 1: never retried."),
        Key("delays", ListOf(_DELAY, 1), "The wait before each further attempt; the last one repeats."),
        Key("initial", _DELAY, "The first wait of a growing series. Instead of `delays`."),
        Key("factor", Real(1, 1000), "Each wait is the one before times this.", default=2),
        Key("max", _DELAY, "No wait of the series is longer."),
    )
)

SUBSCRIPTION = Record(
    (
        Key(
            "events",
            ListOf(EVENT_CHOICE, 1),
            "The event types it takes; `payment.*` stands for all declared that match.",
        ),
        Key("routing_keys", ListOf(BINDING_KEY, 1), "Binding keys, beside or instead of `events`."),
        Key("exchange", NAME, "The exchange of `routing_keys`. Needed when several exchanges are declared."),
        Key("handler", MODULE, "The module that holds its handlers. Left out: other programs consume it."),
        Key("retry", RETRY, "How a failed event is tried again. Left out: 5 attempts after 1s, 5s, 30s, 2m."),
        Key("dead_letter", Flag(), "Keeps events that failed for good in a dead-letter queue.", default=True),
        Key("prefetch", Whole(1, MAX_PREFETCH), "Deliveries a process holds at most.", default=DEFAULT_PREFETCH),
        Key("timeout", Span(1, DAY_MS), "A handler call that takes longer has failed.", default="30s"),
        Key(
            "concurrency",
            Whole(1, 100_000),
            "Handler calls under way at once in a process.",
            default=DEFAULT_CONCURRENCY,
        ),
        Key(
            "delivery_limit",
            Whole(1, MAX_COUNT),
            "Deliveries after which the broker itself dead-letters; above attempts.",
        ),
        Key("policy", Free(), "More for the policy of its work queue, such as `max-length: 1000000`."),
        Key("order_by", ORDER_KEY, "Events of one key are processed in order, one after another: see ordering.md."),
        Key("partitions", Whole(1, SLOTS), "The queues its keys are spread over. Left out: 4. Only with `order_by`."),
        Key(
            "on_dead",
            Choice(("continue", "park")),
            "Whether a key goes on after a dead letter, or is parked with what follows. Only with `order_by`.",
        ),
        Key(
            "on_missing_key",
            Choice(("reject", "default")),
            "Whether events without a key are refused, or are one key together. Only with `order_by`.",
        ),
        Key("start", START, "A new subscription first gets what is in the event log since then."),
    )
)

QUEUE = Record(
    (
        Key("type", Choice(("quorum", "classic", "stream")), "The queue's type.", default="quorum"),
        Key("durable", Flag(), "Survives a restart of the broker.", default=True),
        Key("auto_delete", Flag(), "Deleted by the broker with its last consumer; classic only.", default=False),
        Key("ttl", Span(0, MAX_TTL_MS), "Messages older than this expire."),
        Key("expires", Span(1, MAX_TTL_MS), "The queue is deleted when unused for so long."),
        Key("max_length", Whole(0, MAX_BYTES), "The most messages it holds."),
        Key("max_bytes", Size(0, MAX_BYTES), "The most bytes it holds."),
        Key("max_age", Span(1000, 36_500 * DAY_MS), "Older messages are dropped by whole segments; stream only."),
        Key("segment_bytes", Size(64_000, 3_000_000_000), "The size of a segment file; stream only."),
        Key(
            "overflow",
            Choice(("drop-head", "reject-publish", "reject-publish-dlx")),
            "What gives way when it is full: the oldest message or the newest.",
        ),
        Key(
            "dead_letter_exchange",
            Text("an exchange's name", r"[^\x00-\x1f\x7f]*"),
            "Where expired and rejected ones go.",
        ),
        Key("dead_letter_routing_key", ROUTING_KEY, "With which key they go there. Left out: their own."),
        Key(
            "dead_letter_strategy", Choice(("at-most-once", "at-least-once")), "Whether they may be lost; quorum only."
        ),
        Key("single_active_consumer", Flag(), "Only one consumer is served at a time."),
        Key("delivery_limit", Whole(0, MAX_COUNT), "Deliveries after which a message is dead-lettered; quorum only."),
        Key("max_priority", Whole(1, 255), "Highest message priority; classic only."),
        _ARGUMENTS,
    )
)

BINDING = Record(
    (
        Key("exchange", NAME, "The source.", required=True),
        Key("queue", NAME, "The queue that gets the messages."),
        Key("to_exchange", NAME, "The exchange that gets the messages. Instead of `queue`."),
        Key("routing_key", BINDING_KEY, "The binding key.", default=""),
        Key("arguments", Free(), "Arguments of the binding, for headers exchanges."),
    )
)

POLICY = Record(
    (
        Key("pattern", REGEX, "Applies to objects whose name matches.", required=True),
        Key(
            "apply_to",
            Choice(("queues", "exchanges", "all", "classic_queues", "quorum_queues", "streams")),
            "What it applies to. The last three need RabbitMQ 3.12.",
            default="queues",
        ),
        Key("priority", Whole(-MAX_COUNT, MAX_COUNT), "RabbitMQ applies only the one with the highest.", default=0),
        Key("definition", Free(1), "What it sets, such as `max-length: 1000`.", required=True),
    )
)

DELAY = Record((Key("max", Span(1000, 366 * DAY_MS), "The longest an event may wait.", default="30d"),))

EVENT_LOG = Record(
    (
        Key("exchange", NAME, "The exchange whose events it keeps.", required=True),
        Key("name", NAME, "The stream's name. Left out: the exchange's with `.log`."),
        Key("max_age", Span(1000, 36_500 * DAY_MS), "Older events are dropped, by whole segments.", default="7d"),
        Key("max_size", Size(64_000, MAX_BYTES), "Above it the oldest are dropped, by whole segments.", default="5GB"),
        Key("segment_size", Size(64_000, 3_000_000_000), "The size of a segment.", default="100MB"),
    )
)

SCHEDULE = Record(
    (
        Key("cron", Text("a cron expression", example="0 6 * * MON-FRI"), "When: minute, hour, day, month, weekday."),
        Key("every", Span(1000, 366 * DAY_MS), "Instead: how often, in whole seconds, counted from 1970 in UTC."),
        Key("timezone", Text("a time zone", example="Europe/Berlin"), "Whose clock `cron` means.", default="UTC"),
        Key("event", EVENT_NAME, "The event type to publish.", required=True),
        Key("data", Free(), "Its data."),
        Key(
            "missed",
            Choice(("skip", "once", "all")),
            "Ticks while no scheduler ran: none, only the last one, or each is made up for.",
            default="once",
        ),
    )
)

FILE = Record(
    (
        Key("version", Constant(VERSION), "The version of this form.", required=True),
        Key("exchanges", MapOf(NAME, EXCHANGE), "Exchanges by name."),
        Key("events", MapOf(EVENT_NAME, EVENT), "What may be published, and where it goes."),
        Key("subscriptions", MapOf(SUBSCRIPTION_NAME, SUBSCRIPTION), "Named consumer groups; each gets its own copy."),
        Key("event_log", EVENT_LOG, "Keeps every event of an exchange in a stream: see event-log.md."),
        Key("delay", DELAY, "Lets events and retries wait in the broker; there is no delay without it."),
        Key("schedules", MapOf(SUBSCRIPTION_NAME, SCHEDULE), "Events that a scheduler publishes again and again."),
        Key("queues", MapOf(NAME, QUEUE), "Plain queues, for what subscriptions do not say."),
        Key("bindings", ListOf(BINDING), "Plain bindings."),
        Key("policies", MapOf(NAME, POLICY), "Plain policies."),
    )
)
