"""Subscriptions as RabbitMQ objects."""

from __future__ import annotations

import re

import pytest

from pipeline.topology.expand import concerning, expand
from pipeline.topology.load import load_text
from pipeline.topology.model import Binding, BrokerObjects, Policy

SHOP = """\
version: 1
exchanges: {events: {}, audit: {type: fanout}}
events:
  order.created: {exchange: events, routing_key: orders.v1.created}
  payment.taken: {exchange: events}
subscriptions:
  payments: {events: [order.created], retry: {delays: [1s, 90s]}}
  orders.v2: {events: [order.created, payment.taken], dead_letter: false, retry: {attempts: 1}}
  everything: {routing_keys: ["#"], exchange: audit, policy: {max-length: 5}, delivery_limit: 40}
queues: {log: {type: stream, max_age: 7d, max_bytes: 1GiB}}
bindings: [{exchange: events, to_exchange: audit, routing_key: "#"}, {exchange: audit, queue: log}]
"""


@pytest.fixture(scope="module")
def shop() -> BrokerObjects:
    return expand(load_text(SHOP).topology)


def keys_of(objects: BrokerObjects, queue: str) -> set[tuple[str, str]]:
    """(exchange, routing key) of the bindings to `queue`."""
    return {(binding.source, binding.routing_key) for binding in objects.bindings if binding.destination == queue}


def test_a_work_queue_dead_letters_without_loss(shop: BrokerObjects) -> None:
    assert shop.queues["payments"].durable
    assert shop.queues["payments"].arguments == {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "payments.dlq",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def test_a_retry_queue_sends_back_after_its_delay(shop: BrokerObjects) -> None:
    assert shop.queues["payments.retry.90s"].arguments == {
        "x-queue-type": "quorum",
        "x-message-ttl": 90_000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "payments",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def test_a_dead_letter_queue_is_the_end(shop: BrokerObjects) -> None:
    assert shop.queues["payments.dlq"].arguments == {"x-queue-type": "quorum"}


def test_names_are_readable(shop: BrokerObjects) -> None:
    assert {name: queue.role for name, queue in shop.queues.items()} == {
        "payments": "work",
        "payments.retry.1s": "retry",
        "payments.retry.90s": "retry",
        "payments.dlq": "dead_letter",
        "orders.v2": "work",
        "everything": "work",
        "everything.retry.1s": "retry",
        "everything.retry.5s": "retry",
        "everything.retry.30s": "retry",
        "everything.retry.2m": "retry",
        "everything.dlq": "dead_letter",
        "log": "plain",
    }


def test_without_dead_letters_there_are_no_dead_letter_arguments(shop: BrokerObjects) -> None:
    assert shop.queues["orders.v2"].arguments == {"x-queue-type": "quorum"}


def test_bindings_follow_events_and_routing_keys(shop: BrokerObjects) -> None:
    assert keys_of(shop, "payments") == {("events", "orders.v1.created")}
    assert keys_of(shop, "orders.v2") == {("events", "orders.v1.created"), ("events", "payment.taken")}
    assert keys_of(shop, "everything") == {("audit", "#")}


def test_the_delivery_limit_is_a_policy_of_just_its_queue(shop: BrokerObjects) -> None:
    assert shop.policies["pipeline.orders.v2"] == Policy(
        "pipeline.orders.v2", r"^orders\.v2$", {"delivery-limit": 20}, "queues", 10
    )
    assert shop.policies["pipeline.everything"].definition == {"delivery-limit": 40, "max-length": 5}
    assert shop.policies["pipeline.payments.dlq"].definition == {"delivery-limit": 2_000_000_000}


def test_each_queue_of_a_subscription_has_one_policy_of_ours_and_no_other_queue_has_one(shop: BrokerObjects) -> None:
    others = ["log", "ordersXv2", "payments.retry.mine", "payments2", "my.payments", "payments.retry.1sec"]
    matched = {
        queue: [policy.name for policy in shop.policies.values() if re.search(policy.pattern, queue)]
        for queue in [*shop.queues, *others]
    }

    assert {queue: names for queue, names in matched.items() if queue in others} == {queue: [] for queue in others}
    assert matched["payments"] == ["pipeline.payments"]
    assert matched["payments.retry.90s"] == ["pipeline.payments.retry"]
    assert matched["payments.dlq"] == ["pipeline.payments.dlq"]
    assert all(len(names) == 1 for queue, names in matched.items() if queue not in others)


def test_a_plain_queue_speaks_rabbitmqs_units(shop: BrokerObjects) -> None:
    assert shop.queues["log"].arguments == {
        "x-queue-type": "stream",
        "x-max-age": "7D",
        "x-max-length-bytes": 2**30,
    }


def test_what_concerns_a_subscription_reaches_back_through_exchanges(shop: BrokerObjects) -> None:
    # given a subscription behind an exchange that another exchange feeds
    part = concerning(shop, ["everything", "everything.dlq"])

    # then both exchanges, the binding between them and the policies belong to it, and nothing of others
    assert set(part.exchanges) == {"audit", "events"}
    assert set(part.queues) == {"everything", "everything.dlq"}
    assert set(part.policies) == {"pipeline.everything", "pipeline.everything.dlq"}  # no retry queue was asked for
    assert part.bindings == (Binding("audit", "everything", "#"), Binding("events", "audit", "#", "exchange"))
