"""Checked `subscriptions:` → `Subscription`s. In: plain data, exchanges, event types. Out: subscriptions, problems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.topology.findings import Findings, Path, did_you_mean
from pipeline.topology.keys import DEFAULT_CONCURRENCY, DEFAULT_PREFETCH, DEFAULT_TIMEOUT_MS
from pipeline.topology.ladder import resolve_retry
from pipeline.topology.model import EventType, Exchange, Queue, RetryPolicy, Subscription
from pipeline.topology.order import check_order, resolve_order
from pipeline.topology.resolve import check_definition, check_name, default_exchange
from pipeline.topology.routing import is_pattern, topic_matches

MAX_NAME_BYTES = 255
LEAST_DELIVERY_LIMIT = 20  # RabbitMQ 4's own default
DELIVERY_MARGIN = 10

# What the work queue's policy may not say, and what says it instead.
_FORBIDDEN_POLICY = {
    "delivery-limit": "use the key delivery_limit",
    "dead-letter-exchange": "dead letters go to the subscription's own queue",
    "dead-letter-routing-key": "dead letters go to the subscription's own queue",
    "dead-letter-strategy": "at-least-once is fixed: dead letters must not be lost",
    "overflow": "reject-publish is fixed: at-least-once dead-lettering needs it",
    "expires": "the broker would delete the queue with what is in it",
}


def resolve_subscriptions(
    data: Mapping[str, Any], exchanges: Mapping[str, Exchange], events: Mapping[str, EventType], findings: Findings
) -> dict[str, Subscription]:
    """The declared subscriptions."""
    subscriptions = {}
    for name, entry in data.items():
        path = ("subscriptions", name)
        check_name(name, path, findings)
        retry = _retry(entry, path, findings)
        subscriptions[name] = Subscription(
            name,
            events=_events(entry.get("events", []), (*path, "events"), events, findings),
            routing_keys=tuple(key for key in entry.get("routing_keys", []) if isinstance(key, str)),
            handler=entry.get("handler", ""),
            retry=retry,
            dead_letter=entry.get("dead_letter", True),
            prefetch=entry.get("prefetch", DEFAULT_PREFETCH),
            timeout=entry.get("timeout", DEFAULT_TIMEOUT_MS) / 1000,
            concurrency=entry.get("concurrency", DEFAULT_CONCURRENCY),
            delivery_limit=_delivery_limit(entry, retry, path, findings),
            exchange=_exchange(entry, path, exchanges, findings),
            policy=_policy(entry.get("policy", {}), (*path, "policy"), findings),
            start=entry.get("start", ""),
            **resolve_order(entry, path, findings),
        )
        check_order(subscriptions[name], path, exchanges, findings)
        _check_bindings(subscriptions[name], path, exchanges, events, findings)
    return subscriptions


def check_derived_names(
    queues: Mapping[str, tuple[Queue, ...]], plain: Mapping[str, Queue], findings: Findings
) -> dict[str, str]:
    """Refuse queue names that are too long or taken twice; returns the owner of each subscription's queue."""
    owners: dict[str, str] = {}
    for subscription, own in queues.items():
        path = ("subscriptions", subscription)
        for queue in own:
            length = len(queue.name.encode())
            if length > MAX_NAME_BYTES:
                message = f"its queue {queue.name[:40]}… has a name of {length} bytes; {MAX_NAME_BYTES} is the most"
                findings.error(path, message, "shorten the subscription's name", key=True)
            if other := owners.get(queue.name):
                message = f"its queue {queue.name} is also one of subscription {other}"
                findings.error(path, message, "rename one of them", key=True)
            if queue.name in plain:
                message = f"subscription {subscription} makes a queue of this name"
                findings.error(("queues", queue.name), message, "rename it, or leave it to the subscription", key=True)
            owners[queue.name] = subscription
    return owners


def _events(names: list[Any], path: Path, events: Mapping[str, EventType], findings: Findings) -> tuple[str, ...]:
    """Declared event types; a pattern such as `payment.*` stands for all of them it matches."""
    taken: dict[str, None] = {}
    for index, name in enumerate(names):
        if not isinstance(name, str):
            continue  # already noted as wrong
        inside = (*path, index)
        matching = [event for event in events if topic_matches(name, event)] if is_pattern(name) else []
        if name in events:
            matching = [name]
        elif not matching:
            what = f"no declared event matches {name}" if is_pattern(name) else f"no event {name} is declared"
            findings.error(inside, what, did_you_mean(name, events))
        if name in taken:
            findings.error(inside, f"{name} is there twice")
        taken.update(dict.fromkeys(matching))
    return tuple(taken)


def _retry(entry: Mapping[str, Any], path: Path, findings: Findings) -> RetryPolicy:
    inside = (*path, "retry")
    return resolve_retry(None if findings.broken(inside) else entry.get("retry"), inside, findings)


def _delivery_limit(entry: Mapping[str, Any], retry: RetryPolicy, path: Path, findings: Findings) -> int:
    limit: int | None = entry.get("delivery_limit")
    if limit is None:
        return max(LEAST_DELIVERY_LIMIT, retry.attempts + DELIVERY_MARGIN)
    if limit <= retry.attempts:
        message = f"is {limit}; it must be above the {retry.attempts} attempts, or it would cut them short"
        findings.error((*path, "delivery_limit"), message)
    return limit


def _exchange(entry: Mapping[str, Any], path: Path, exchanges: Mapping[str, Exchange], findings: Findings) -> str:
    if "routing_keys" in entry:
        return default_exchange(entry, path, exchanges, findings)
    if "exchange" in entry:
        findings.error((*path, "exchange"), "is only for routing_keys; events have their own", "leave it out", key=True)
    return ""


def _policy(definition: Mapping[str, Any], path: Path, findings: Findings) -> Mapping[str, Any]:
    for key in definition:
        if hint := _FORBIDDEN_POLICY.get(key):
            findings.error((*path, key), "can't be set here", hint, key=True)
    check_definition(definition, path, findings)
    return definition


def _check_bindings(
    subscription: Subscription,
    path: Path,
    exchanges: Mapping[str, Exchange],
    events: Mapping[str, EventType],
    findings: Findings,
) -> None:
    """A consistent-hash exchange takes weights as binding keys: numbers, never an event's routing key."""
    hashing = {name for name, exchange in exchanges.items() if exchange.type == "x-consistent-hash"}
    for event in subscription.events:
        if events[event].exchange in hashing:
            message = f"{event} goes to {events[event].exchange}, which binds by weight"
            findings.error((*path, "events"), message, 'use routing_keys: ["1"]', key=True)
    if subscription.exchange in hashing and not all(key.isdecimal() for key in subscription.routing_keys):
        message = f"exchange {subscription.exchange} binds by weight"
        findings.error((*path, "routing_keys"), message, 'each is a number, such as "1"')
