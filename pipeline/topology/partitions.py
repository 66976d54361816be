"""Ordered subscriptions on the broker: names, exchanges, queues, bindings. In: a `Subscription`. Out: broker objects.

    events ──bindings──► stock.partitions ──► stock.p8 ──► stock.p8.0 … stock.p8.7 ──(dead)──► stock.dlq
                           fanout           direct, slots     single active consumer
                                                 └─no slot──► stock.p8.keyless ──► stock.p8.0

The number of partitions is in the names: another number is another *generation* beside the old one, and the binding
behind `stock.partitions` is the one switch between them. A subscription that starts with the past has a generation for
it, `stock.p08.0` and on, that nothing is bound to. Reasons in docs/decisions/0014-order.md.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from pipeline.topology.model import Binding, BrokerObjects, EventType, Exchange, Queue, Subscription, Topology
from pipeline.topology.routing import queues_reached
from pipeline.topology.slots import slot_keys, slot_of

DATA = "data."  # what a path into the event's data begins with
KEY_HEADER = "pipeline-key-"  # and the path: the header that tells the key
# These attributes travel as headers of their own already.
ATTRIBUTE_HEADERS: Mapping[str, str] = {"subject": "cloudEvents_subject", "source": "cloudEvents_source"}
KEYLESS = ".keyless"  # behind a generation's name: the exchange for what names no slot
ORDER_BY = "pipeline-order-by"  # an argument of a generation, which RabbitMQ keeps and ignores: what its slots are of

_GENERATION = re.compile(r"(?P<name>.+)\.p(?P<count>[0-9]+)")
_PARTITION = re.compile(r"(?P<generation>.+\.p[0-9]+)\.(?P<index>[0-9]+)")


def entrance(subscription: Subscription) -> str:
    """The exchange through which everything comes to an ordered subscription."""
    return f"{subscription.name}.partitions"


def generation(subscription: Subscription) -> str:
    """The exchange that spreads events over the partitions; its name tells how many there are."""
    return f"{subscription.name}.p{subscription.partitions}"


def keyless(subscription: Subscription) -> str:
    """The exchange for what names no slot: other programs' messages. All of it goes to the first partition."""
    return f"{generation(subscription)}{KEYLESS}"


def past_generation(subscription: Subscription) -> str:
    """What the partitions of what was published before the subscription went live begin with; a zero tells them."""
    return _past_of(generation(subscription))


def past_partition(subscription: Subscription, key: str) -> str:
    """The queue for a key's past."""
    return f"{past_generation(subscription)}.{slot_of(key) % subscription.partitions}"


def is_partition(queue: str, subscription: str) -> bool:
    """Whether a queue is a partition of this subscription, of any generation."""
    return _PARTITION.fullmatch(queue) is not None and owner_of(queue, [subscription]) == subscription


def is_past(partition: str) -> bool:
    """Whether a partition holds what is older than all in the others of its subscription."""
    part = _PARTITION.fullmatch(partition)
    match = _GENERATION.fullmatch(part["generation"]) if part else None
    return match is not None and match["count"].startswith("0")


def _past_of(generation_name: str) -> str:
    name, _, count = generation_name.rpartition(".p")
    return f"{name}.p0{count}"


def partition_queues(generation_name: str) -> tuple[str, ...]:
    """The names of a generation's queues, in order."""
    match = _GENERATION.fullmatch(generation_name)
    count = int(match["count"]) if match else 0
    return tuple(f"{generation_name}.{index}" for index in range(count))


def work_queues(subscription: Subscription) -> tuple[str, ...]:
    """The queues that the subscription's worker consumes: its partitions, or its one work queue."""
    return partition_queues(generation(subscription)) if subscription.order_by else (subscription.queue,)


def key_header(order_by: str) -> str:
    """The header that tells the key; "" for the event's type."""
    if order_by.startswith(DATA):
        return f"{KEY_HEADER}{order_by}"
    return ATTRIBUTE_HEADERS.get(order_by, "")


def ordered_exchanges(subscription: Subscription) -> list[Exchange]:
    """The entrance, which takes our redrives too, the exchange that spreads, and the one for what has no slot."""
    arguments = {"alternate-exchange": keyless(subscription), ORDER_BY: subscription.order_by}
    return [
        Exchange(entrance(subscription), "fanout"),
        Exchange(generation(subscription), "direct", arguments=arguments),
        Exchange(keyless(subscription), "fanout", internal=True),
    ]


def ordered_queues(subscription: Subscription, arguments: Mapping[str, Any]) -> list[Queue]:
    """The partitions; `arguments` are what a work queue has anyway."""
    arguments = {**arguments, "x-single-active-consumer": True}
    return [
        Queue(name, arguments=arguments, role="work", subscription=subscription.name)
        for name in partition_queues(generation(subscription))
    ]


def ordered_bindings(subscription: Subscription, sources: Iterable[tuple[str, str]]) -> list[Binding]:
    """The bindings from the back to the front, as they are to be made; `sources` are (exchange, binding key)."""
    name = generation(subscription)
    queues = partition_queues(name)
    slots = enumerate(slot_keys(subscription.order_by))
    return [
        Binding(keyless(subscription), queues[0]),
        *(Binding(name, queues[slot % len(queues)], key) for slot, key in slots),
        Binding(entrance(subscription), name, destination_type="exchange"),
        *(Binding(source, entrance(subscription), key, "exchange") for source, key in sources),
    ]


def owner_of(exchange_or_queue: str, ordered: Iterable[str]) -> str:
    """Which of these ordered subscriptions an exchange or partition of any generation belongs to; "" for none."""
    part = _PARTITION.fullmatch(exchange_or_queue)
    match = _GENERATION.fullmatch(part["generation"] if part else exchange_or_queue.removesuffix(KEYLESS))
    return match["name"] if match and match["name"] in ordered else ""


def is_switch(binding: Binding) -> bool:
    """Whether it lets events into a generation."""
    name = binding.source.removesuffix(".partitions")
    return (
        name != binding.source
        and binding.destination_type == "exchange"
        and owner_of(binding.destination, [name]) == name
        and not _PARTITION.fullmatch(binding.destination)
    )


def ordered_names(desired: BrokerObjects) -> set[str]:
    """The ordered subscriptions among the objects."""
    return {binding.source.removesuffix(".partitions") for binding in desired.bindings if is_switch(binding)}


def with_past(desired: BrokerObjects, subscriptions: Collection[str]) -> BrokerObjects:
    """The objects, and for those ordered subscriptions among these the partitions of their past: today's once more."""
    queues = dict(desired.queues)
    for switch in filter(is_switch, desired.bindings):
        if switch.source.removesuffix(".partitions") not in subscriptions:
            continue
        past = _past_of(switch.destination)
        for today, name in zip(partition_queues(switch.destination), partition_queues(past), strict=True):
            queues[name] = replace(desired.queues[today], name=name)
    return replace(desired, queues=queues)


def superseded(desired: BrokerObjects, actual: BrokerObjects) -> list[Binding]:
    """The switches that are on for generations before: to be taken off once the new one is on."""
    ordered = ordered_names(desired)
    return [
        binding
        for binding in actual.bindings
        if is_switch(binding)
        and binding.source.removesuffix(".partitions") in ordered
        and binding.destination not in desired.exchanges
    ]


def former_selves(desired: BrokerObjects, actual: BrokerObjects) -> list[tuple[Exchange | Queue, str]]:
    """What shows that a subscription became ordered, or ceased to be, in place; and why that can't be."""
    ordered = ordered_names(desired)
    subscriptions = {queue.subscription for queue in desired.queues.values() if queue.subscription}
    found: list[tuple[Exchange | Queue, str]] = []
    for name in sorted(subscriptions):
        hint = "declare it under another name, and take this one out once its queues are empty"
        if name in ordered and name in actual.queues:
            found.append((actual.queues[name], f"{name} was not ordered before and can't become so in place; {hint}"))
        if name not in ordered and f"{name}.partitions" in actual.exchanges:
            was = actual.exchanges[f"{name}.partitions"]
            found.append((was, f"{name} was ordered before and can't stop being so in place; {hint}"))
    return found


def takers(topology: Topology) -> dict[str, tuple[Subscription, ...]]:
    """The ordered subscriptions that take each event type; types that none takes are not in it."""
    ordered = [each for each in topology.subscriptions.values() if each.order_by]
    if not ordered:
        return {}
    found = {}
    for event in topology.events.values():
        taking = tuple(each for each in ordered if event.name in each.events or _reaches(event, each, topology))
        if taking:
            found[event.name] = taking
    return found


def _reaches(event: EventType, subscription: Subscription, topology: Topology) -> bool:
    bindings = [Binding(subscription.exchange, subscription.name, key) for key in subscription.routing_keys]
    return bool(queues_reached(event, topology.exchanges, [*topology.bindings, *bindings]) & {subscription.name})


def as_one_queue(topology: Topology, bindings: Iterable[Binding]) -> tuple[Binding, ...]:
    """The bindings, with an ordered subscription's exchanges and partitions as one queue of its name."""
    ordered = [each for each in topology.subscriptions.values() if each.order_by]
    inner = {name for each in ordered for name in (entrance(each), generation(each), keyless(each))}
    into = {entrance(each): each.name for each in ordered}
    seen = []
    for binding in bindings:
        if binding.source in inner:
            continue
        if binding.destination_type == "exchange" and binding.destination in into:
            binding = replace(binding, destination=into[binding.destination], destination_type="queue")
        seen.append(binding)
    return tuple(seen)
