"""The topology as values. In: `load` builds `Topology` from files. Out: `expand` turns it into `BrokerObjects`.

Durations are seconds. Names and argument keys are RabbitMQ's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange: `type` is direct, fanout, topic, headers or a plugin's (`x-consistent-hash`)."""

    name: str
    type: str = "topic"
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue; `arguments` holds everything beyond the flags, `x-queue-type` among it."""

    name: str
    durable: bool = True
    auto_delete: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    role: str = "plain"  # work | retry | dead_letter | delay | scheduler | log | plain: for people and pictures
    subscription: str = ""  # whose it is; "" for plain queues


@dataclass(frozen=True, slots=True)
class Binding:
    """`source` exchange → `destination` queue (or exchange)."""

    source: str
    destination: str
    routing_key: str = ""
    destination_type: str = "queue"  # or "exchange"
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Policy:
    """A RabbitMQ policy: `definition` applies to objects whose name matches the regular expression `pattern`."""

    name: str
    pattern: str
    definition: Mapping[str, Any]
    apply_to: str = "queues"
    priority: int = 0


@dataclass(frozen=True, slots=True)
class EventType:
    """What may be published: to `exchange` with `routing_key` (the type's name unless declared)."""

    name: str
    exchange: str
    routing_key: str
    model: str = ""  # "package.module:Class", "" for none
    schema: str = ""  # absolute path of a JSON Schema file, "" for none
    compress_over: int = 0  # bytes; 0 never compresses


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`attempts` counts the first one too. `delays[i]` waits before attempt i + 2; the last delay repeats."""

    attempts: int
    delays: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Subscription:
    """A named consumer group with its own queue (named like it), retry ladder and dead-letter queue."""

    name: str
    events: tuple[str, ...]
    routing_keys: tuple[str, ...]
    handler: str  # module path, "" when only other programs consume
    retry: RetryPolicy
    dead_letter: bool = True
    prefetch: int = 1000
    timeout: float = 30.0  # of one handler call
    concurrency: int = 100  # handler calls under way at once in one process
    delivery_limit: int = 20  # broker's net for a message that kills its worker; above `attempts`
    exchange: str = ""  # of `routing_keys`, "" when there are none
    policy: Mapping[str, Any] = field(default_factory=dict)  # more for the work queue's policy, such as max-length
    order_by: str = ""  # type, subject, source or data.PATH: events of one key are processed in order; "" for none
    partitions: int = 0  # queues of an ordered subscription, named and bound by `partitions.py`
    on_dead: str = "continue"  # or "park": what follows a dead letter of its key waits for it
    on_missing_key: str = "reject"  # or "default": events without a key are in order among themselves
    start: str = ""  # a new one catches up from this `LogPoint` of the event log; "" begins with what comes

    @property
    def queue(self) -> str:
        """The work queue's name."""
        return self.name

    @property
    def dead_letter_queue(self) -> str:
        """The dead-letter queue's name."""
        return f"{self.name}.dlq"

    def retry_queue(self, delay: float) -> str:
        """The name of the queue that holds messages for `delay` seconds: `payments.retry.5s`."""
        return f"{self.name}.retry.{duration_text(delay)}"


@dataclass(frozen=True, slots=True)
class Delay:
    """The delay ladder: events and retries may wait up to `longest` seconds (whole) in queues of the broker."""

    longest: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """`event` with `data`, again and again: as `cron` says in `timezone`, or `every` so many seconds (0: by cron).

    `missed` says what becomes of ticks during which no scheduler ran: skip, once (the last one) or all.
    """

    name: str
    event: str
    data: Mapping[str, Any]
    cron: str = ""
    timezone: str = "UTC"
    every: int = 0
    missed: str = "once"

    @property
    def rule(self) -> str:
        """When, for people: `every 5m`, `0 6 * * * Europe/Berlin`."""
        return f"every {duration_text(self.every)}" if self.every else f"{self.cron} {self.timezone}"


@dataclass(frozen=True, slots=True)
class EventLog:
    """A stream that keeps every event of `exchange` for `max_age` seconds or until it has `max_size` bytes."""

    exchange: str
    name: str
    max_age: float
    max_size: int
    segment_size: int


@dataclass(frozen=True, slots=True)
class CatchUp:
    """A new subscription, by name, that is to get what is in the log's stream since `start` before it goes live."""

    name: str
    stream: str
    start: str


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything the files declare, merged and valid. Mappings are keyed by name, in file order."""

    exchanges: Mapping[str, Exchange]
    events: Mapping[str, EventType]
    subscriptions: Mapping[str, Subscription]
    queues: Mapping[str, Queue]
    bindings: tuple[Binding, ...]
    policies: Mapping[str, Policy]
    files: tuple[str, ...] = ()
    delay: Delay | None = None
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    event_log: EventLog | None = None


@dataclass(frozen=True, slots=True)
class BrokerObjects:
    """What must exist on the broker (desired), or what does (actual): the two sides of a plan."""

    exchanges: Mapping[str, Exchange]
    queues: Mapping[str, Queue]
    bindings: tuple[Binding, ...]
    policies: Mapping[str, Policy]
    catch_ups: tuple[CatchUp, ...] = ()  # desired ones only


_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms"))


def duration_text(seconds: float) -> str:
    """The shortest exact text of a duration: 5.0 → "5s", 120 → "2m", 0.25 → "250ms"."""
    milliseconds = round(seconds * 1000)
    for size, unit in _UNITS:
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return "0s"
