"""The keys of an ordered subscription, checked. In: plain data of one subscription. Out: its fields, problems.

A failed event of an ordered subscription keeps its place: the worker holds it, and what follows it, through the wait.
RabbitMQ closes the channel of whoever holds a message for longer than its `consumer_timeout`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.topology.findings import Findings, Path
from pipeline.topology.keys import DEFAULT_PARTITIONS
from pipeline.topology.model import Exchange, Subscription, duration_text
from pipeline.topology.partitions import entrance, generation, keyless

# RabbitMQ's consumer_timeout is 30 minutes unless set otherwise; the rest is for the handler and what waited before.
LONGEST_DELAY = 900.0  # seconds
ONLY_ORDERED = ("partitions", "on_dead", "on_missing_key")


def resolve_order(entry: Mapping[str, Any], path: Path, findings: Findings) -> dict[str, Any]:
    """The fields of `Subscription` that make it ordered; none of them when it is not."""
    order_by = entry.get("order_by", "")
    if not order_by:
        for key in ONLY_ORDERED:
            if key in entry and not findings.broken((*path, "order_by")):
                findings.error(
                    (*path, key), "is only for ordered subscriptions", "add order_by, such as order_by: type", key=True
                )
        return {}
    if order_by == "type" and "on_missing_key" in entry:
        findings.error((*path, "on_missing_key"), "every event has a type", "leave it out", key=True)
    return {
        "order_by": order_by,
        "partitions": entry.get("partitions", DEFAULT_PARTITIONS),
        "on_dead": entry.get("on_dead", "continue"),
        "on_missing_key": entry.get("on_missing_key", "reject"),
    }


def check_order(subscription: Subscription, path: Path, exchanges: Mapping[str, Exchange], findings: Findings) -> None:
    """Refuse what can't be kept in order."""
    if not subscription.order_by:
        return
    if subscription.on_dead == "park" and not subscription.dead_letter:
        findings.error((*path, "on_dead"), "park needs the dead-letter queue", "leave out dead_letter: false")
    for index, delay in enumerate(subscription.retry.delays):
        if delay > LONGEST_DELAY:
            longest = duration_text(LONGEST_DELAY)
            message = f"waits {duration_text(delay)}; in an ordered subscription {longest} is the most"
            hint = "its event is held through the wait, and RabbitMQ allows 30m for holding one"
            where: Path = (*path, "retry", "delays", index)
            if where not in findings.values:
                where = next(
                    (at for key in ("max", "initial") if (at := (*path, "retry", key)) in findings.values), path
                )
            findings.error(where, message, hint, key=where == path)
            break
    for name in (entrance(subscription), generation(subscription), keyless(subscription)):
        if name in exchanges:
            message = f"subscription {subscription.name} makes an exchange of this name"
            findings.error(("exchanges", name), message, "rename one of them", key=True)
