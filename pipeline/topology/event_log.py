"""The event log in the topology: a stream behind an exchange. In: the `event_log:` entry. Out: what is to be declared.

    events ──#──► events.log (stream)        every event, in the same publish and covered by the same confirm

How long it keeps what is a policy, so that it can change without a new stream. Reasons in
docs/decisions/0013-event-log.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pipeline.topology.findings import Findings, Path
from pipeline.topology.log_point import log_point
from pipeline.topology.model import (
    Binding,
    BrokerObjects,
    CatchUp,
    EventLog,
    EventType,
    Exchange,
    Policy,
    Queue,
    Subscription,
)
from pipeline.topology.partitions import ordered_names, partition_queues, past_generation
from pipeline.topology.resolve import check_exchange, check_name
from pipeline.topology.routing import BUILTIN_EXCHANGES

DEFAULT_MAX_AGE_MS = 7 * 86_400_000
DEFAULT_MAX_SIZE = 5 * 10**9
DEFAULT_SEGMENT = 100 * 10**6
MAX_NAME_BYTES = 255
POLICY = "pipeline._event_log"  # no subscription's: their names don't begin with an underscore
# Of a stream that somebody made by hand, and that the policy overrides.
OVERRIDDEN = ("x-max-age", "x-max-length-bytes", "x-stream-max-segment-size-bytes")
MARKER = ".catchup"  # behind a subscription's name: the queue that is there while it catches up

_PATH: Path = ("event_log",)


def resolve_event_log(
    data: Mapping[str, Any] | None, exchanges: Mapping[str, Exchange], findings: Findings
) -> EventLog | None:
    """The declared log; None when there is none, or it can't be."""
    if data is None or findings.broken(_PATH):
        return None
    exchange = data["exchange"]
    check_exchange(exchange, (*_PATH, "exchange"), exchanges, findings)
    kind = (exchanges.get(exchange) or BUILTIN_EXCHANGES.get(exchange) or Exchange(exchange)).type
    if kind not in ("topic", "fanout", "direct"):
        message = f"exchange {exchange} is of type {kind}, which no binding brings everything from"
        hint = "publish to a topic exchange, and bind this one to it"
        findings.error((*_PATH, "exchange"), message, hint)
    name = data.get("name", f"{exchange}.log")
    where = (*_PATH, "name") if "name" in data else (*_PATH, "exchange")
    check_name(name, where, findings)
    if len(name.encode()) > MAX_NAME_BYTES:
        findings.error(where, f"the stream's name has {len(name.encode())} bytes; {MAX_NAME_BYTES} is the most")
    max_size, segment = data.get("max_size", DEFAULT_MAX_SIZE), data.get("segment_size", DEFAULT_SEGMENT)
    if segment > max_size:
        where = (*_PATH, "max_size") if "max_size" in data else (*_PATH, "segment_size")
        message = f"max_size of {max_size} bytes is below the segment size of {segment}"
        findings.error(where, message, "a stream drops whole segments, and never the one it writes to")
    return EventLog(exchange, name, data.get("max_age", DEFAULT_MAX_AGE_MS) / 1000, max_size, segment)


def check_log_name(log: EventLog | None, queues: Mapping[str, Any], owned: Collection[str], findings: Findings) -> None:
    """Refuse a queue that is named like the log's stream."""
    if log is None:
        return
    if log.name in queues:
        hint = "take it out of queues, and its binding out of bindings: the log brings both"
        findings.error(("queues", log.name), "the event log has a stream of this name", hint, key=True)
    if log.name in owned:
        where = (*_PATH, "name") if (*_PATH, "name") in findings.values else (*_PATH, "exchange")
        findings.error(
            where, f"a subscription has a queue named {log.name}", "give the log a name of its own, with name"
        )


def log_queue(log: EventLog) -> Queue:
    """The stream."""
    return Queue(log.name, arguments={"x-queue-type": "stream"}, role="log")


def log_bindings(log: EventLog, exchanges: Mapping[str, Exchange], events: Iterable[EventType]) -> list[Binding]:
    """What brings every event of the exchange to the stream; of a direct one, every declared event."""
    kind = (exchanges.get(log.exchange) or BUILTIN_EXCHANGES.get(log.exchange) or Exchange(log.exchange)).type
    if kind == "direct":
        keys = dict.fromkeys(event.routing_key for event in events if event.exchange == log.exchange)
        return [Binding(log.exchange, log.name, key) for key in keys]
    return [Binding(log.exchange, log.name, "#" if kind == "topic" else "")]


def log_policy(log: EventLog, priority: int) -> Policy:
    """How much of it is kept, and in what pieces."""
    definition = {
        "max-age": f"{max(1, round(log.max_age))}s",
        "max-length-bytes": log.max_size,
        "stream-max-segment-size-bytes": log.segment_size,
    }
    return Policy(POLICY, f"^{_escaped(log.name)}$", definition, "queues", priority)


def check_start(
    subscriptions: Mapping[str, Subscription],
    log: EventLog | None,
    events: Mapping[str, EventType],
    queues: Collection[str],
    findings: Findings,
) -> None:
    """Of subscriptions with `start`: there must be a log, with their events in it."""
    for name, subscription in subscriptions.items():
        path = ("subscriptions", name, "start")
        if not subscription.start or findings.broken(path):
            continue
        try:
            log_point(subscription.start)
        except ValueError as error:
            findings.error(path, str(error))
        if log is None:
            if not findings.broken(_PATH):
                hint = "add event_log: {exchange: ...}, or leave start out"
                findings.error(path, "no event log is declared that it could start from", hint, key=True)
            continue
        others = {events[event].exchange for event in subscription.events} | {subscription.exchange}
        if others := others - {log.exchange, ""}:
            message = f"it takes events of {', '.join(sorted(others))}, and the log is of {log.exchange}"
            findings.error(path, message, "it could catch up with a part of its events only", key=True)
        if marker_of(name) in queues:
            findings.error(path, f"queue {marker_of(name)} is what marks a catching-up", "rename that queue", key=True)
        own = partition_queues(past_generation(subscription)) if subscription.order_by else ()
        for taken in sorted(set(own) & set(queues)):
            message = f"queue {taken} is where what it missed will lie"
            findings.error(path, message, "rename that queue", key=True)


def marker_of(subscription: str) -> str:
    """The queue that is there from before a subscription's bindings are made until it has caught up."""
    return f"{subscription}{MARKER}"


def catch_ups(log: EventLog | None, subscriptions: Iterable[Subscription]) -> tuple[CatchUp, ...]:
    """The subscriptions that are to catch up from the log when they are new."""
    if log is None:
        return ()
    return tuple(CatchUp(each.name, log.name, each.start) for each in subscriptions if each.start)


def unfinished(desired: BrokerObjects, actual: BrokerObjects) -> list[CatchUp]:
    """Those that have not caught up: marked as such, or without any binding yet."""
    bound = {(binding.destination_type, binding.destination) for binding in actual.bindings if binding.source}
    ordered = ordered_names(desired)
    found = []
    for each in desired.catch_ups:
        way_in = ("exchange", f"{each.name}.partitions") if each.name in ordered else ("queue", each.name)
        if marker_of(each.name) in actual.queues or way_in not in bound:
            found.append(each)
    return found


def _escaped(name: str) -> str:
    # As an Erlang regular expression reads it; `re.escape` would escape more than it needs.
    return "".join(f"\\{char}" if char in ".^$*+?()[]{}|\\" else char for char in name)
