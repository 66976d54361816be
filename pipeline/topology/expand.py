"""Subscriptions → RabbitMQ objects. In: `Topology`. Out: `BrokerObjects`, all that must exist on the broker.

    exchange ──binding──► payments ──(rejected, or delivered too often)──► payments.dlq
                             ▲
                             └── payments.retry.5s  (TTL 5 s, dead-letters back)

What correctness hangs on (queue type, dead-lettering, TTL) is an argument, which no policy can override; the delivery
limit is a policy, so it can change without a new queue. Reasons in docs/decisions/0002-topology-expansion.md.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from pipeline.topology.delay import delay_bindings, delay_exchanges, delay_policies, delay_queues
from pipeline.topology.event_log import catch_ups, log_policy
from pipeline.topology.model import Binding, BrokerObjects, EventType, Exchange, Policy, Queue, Subscription, Topology
from pipeline.topology.partitions import ordered_bindings, ordered_exchanges, ordered_queues
from pipeline.topology.resolve import POLICY_PREFIX
from pipeline.topology.schedules import scheduler_policy, scheduler_queue

# Above a policy that somebody put on the whole virtual host; RabbitMQ applies only the one with the highest priority.
POLICY_PRIORITY = 10
# RabbitMQ 4 drops a message of a quorum queue after 20 deliveries by default; a dead letter may be looked at for ever.
UNLIMITED_DELIVERIES = 2_000_000_000

_LOSSLESS: Mapping[str, Any] = {
    # Needs reject-publish; without either, RabbitMQ may lose a message on its way to the dead-letter queue.
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}


def expand(topology: Topology) -> BrokerObjects:
    """All exchanges, queues, bindings and policies the topology needs."""
    exchanges = dict(topology.exchanges)
    queues = dict(topology.queues)
    policies = dict(topology.policies)
    bindings = list(topology.bindings)
    for subscription in topology.subscriptions.values():
        if subscription.order_by:
            exchanges.update((exchange.name, exchange) for exchange in ordered_exchanges(subscription))
        queues.update((queue.name, queue) for queue in subscription_queues(subscription))
        policies.update((policy.name, policy) for policy in subscription_policies(subscription))
        bindings.extend(subscription_bindings(subscription, topology.events))
    _add_delay(topology, exchanges, queues, bindings)
    if topology.schedules:
        queues[scheduler_queue().name] = scheduler_queue()
    policies.update((policy.name, policy) for policy in own_policies(topology))
    pending = catch_ups(topology.event_log, topology.subscriptions.values())
    return BrokerObjects(exchanges, queues, unique(bindings), policies, pending)


def _add_delay(
    topology: Topology, exchanges: dict[str, Exchange], queues: dict[str, Queue], bindings: list[Binding]
) -> None:
    if topology.delay is not None:
        bindings.extend(delay_bindings(topology, [name for name in topology.subscriptions if name in queues]))
        exchanges.update((exchange.name, exchange) for exchange in delay_exchanges())
        queues.update((queue.name, queue) for queue in delay_queues(topology.delay))


def own_policies(topology: Topology) -> list[Policy]:
    """The policies of the delay ladder's queues and of the schedulers' queue."""
    unlimited = {"delivery-limit": UNLIMITED_DELIVERIES}
    policies = delay_policies(topology, unlimited, POLICY_PRIORITY) if topology.delay is not None else []
    if topology.event_log is not None:
        policies.append(log_policy(topology.event_log, POLICY_PRIORITY))
    return [*policies, scheduler_policy(unlimited, POLICY_PRIORITY)] if topology.schedules else policies


def subscription_queues(subscription: Subscription) -> list[Queue]:
    """The work queue, the retry queue of each distinct delay, and the dead-letter queue, in this order."""
    name = subscription.name
    arguments: dict[str, Any] = {"x-queue-type": "quorum"}
    if subscription.dead_letter:
        arguments |= _dead_letters_to(subscription.dead_letter_queue)
    if subscription.order_by:
        queues = ordered_queues(subscription, arguments)
    else:
        queues = [Queue(subscription.queue, arguments=arguments, role="work", subscription=name)]
    for delay in () if subscription.order_by else dict.fromkeys(subscription.retry.delays):  # ordered: retried in place
        waiting = {
            "x-queue-type": "quorum",
            "x-message-ttl": round(delay * 1000),
            **_dead_letters_to(subscription.queue),
        }
        queues.append(Queue(subscription.retry_queue(delay), arguments=waiting, role="retry", subscription=name))
    if subscription.dead_letter:
        arguments = {"x-queue-type": "quorum"}
        dead = Queue(subscription.dead_letter_queue, arguments=arguments, role="dead_letter", subscription=name)
        queues.append(dead)
    return queues


def subscription_policies(subscription: Subscription) -> list[Policy]:
    """The policies of the work queue, the retry queues and the dead-letter queue.

    Those of retry and dead-letter queues also keep away what somebody set for the whole virtual host: `expires` there
    would delete an idle queue with its messages.
    """
    name = _escaped(subscription.queue)
    definition = {"delivery-limit": subscription.delivery_limit, **subscription.policy}
    unlimited = {"delivery-limit": UNLIMITED_DELIVERIES}
    policies = [_policy(subscription.queue, f"^{name}$", definition)]
    if subscription.order_by:
        # Its worker counts the deliveries by itself: what the broker takes out of the line leaves a gap in it.
        definition |= unlimited
        policies = [_policy(subscription.queue, rf"^{name}\.p[0-9]+\.[0-9]+$", definition)]
    elif subscription.retry.delays:
        policies.append(_policy(f"{subscription.queue}.retry", rf"^{name}\.retry\.[0-9]+(ms|s|m|h|d)$", unlimited))
    if subscription.dead_letter:
        dead = subscription.dead_letter_queue
        policies.append(_policy(dead, f"^{_escaped(dead)}$", unlimited))
    return policies


def subscription_bindings(subscription: Subscription, events: Mapping[str, EventType]) -> list[Binding]:
    """The bindings that bring its events to its work queue."""
    taken = [events[name] for name in subscription.events]
    if subscription.order_by:
        sources = [(event.exchange, event.routing_key) for event in taken]
        return ordered_bindings(
            subscription, [*sources, *((subscription.exchange, key) for key in subscription.routing_keys)]
        )
    bindings = [Binding(event.exchange, subscription.queue, event.routing_key) for event in taken]
    bindings += [Binding(subscription.exchange, subscription.queue, key) for key in subscription.routing_keys]
    return bindings


def concerning(objects: BrokerObjects, queues: Collection[str]) -> BrokerObjects:
    """The part of `objects` that `queues` need: themselves, their policies, and exchanges and bindings on the way."""
    needed: set[tuple[str, str]] = {("queue", name) for name in queues}
    bindings: list[Binding] = []
    waiting = list(objects.bindings)
    while found := [binding for binding in waiting if (binding.destination_type, binding.destination) in needed]:
        bindings += found
        needed |= {("exchange", binding.source) for binding in found}
        waiting = [binding for binding in waiting if binding not in found]
    own = [policy for policy in objects.policies.values() if policy.name.startswith(POLICY_PREFIX)]
    return BrokerObjects(
        {name: exchange for name, exchange in objects.exchanges.items() if ("exchange", name) in needed},
        {name: queue for name, queue in objects.queues.items() if name in queues},
        tuple(bindings),
        {policy.name: policy for policy in own if any(re.search(policy.pattern, name) for name in queues)},
    )


def unique(bindings: Collection[Binding]) -> tuple[Binding, ...]:
    """The bindings without repetitions, in order."""
    kept: dict[object, Binding] = {}
    for binding in bindings:
        kept.setdefault(binding_key(binding), binding)
    return tuple(kept.values())


def binding_key(binding: Binding) -> tuple[object, ...]:
    """What makes a binding the same binding to RabbitMQ; hashable."""
    arguments = tuple(sorted((name, repr(value)) for name, value in binding.arguments.items()))
    return (binding.source, binding.destination_type, binding.destination, binding.routing_key, arguments)


def _dead_letters_to(queue: str) -> dict[str, Any]:
    return {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue, **_LOSSLESS}


def _policy(name: str, pattern: str, definition: Mapping[str, Any]) -> Policy:
    return Policy(f"{POLICY_PREFIX}{name}", pattern, definition, "queues", POLICY_PRIORITY)


def _escaped(queue: str) -> str:
    # A subscription's name holds no other character that means something in a regular expression.
    return queue.replace(".", r"\.")
