"""Which delivery limit RabbitMQ applies to a dead-letter queue."""

from __future__ import annotations

from pipeline.amqp.dead_letter_limit import delivery_limit
from pipeline.topology.model import Policy, Queue

QUEUE = Queue("payments.dlq", arguments={"x-queue-type": "quorum"})
OURS = Policy("pipeline.payments.dlq", r"^payments\.dlq$", {"delivery-limit": 2_000_000_000}, priority=10)


def test_without_any_the_version_decides() -> None:
    assert delivery_limit(QUEUE, [], "3.10.8") is None
    assert delivery_limit(QUEUE, [], "4.0.5") == 20
    assert delivery_limit(QUEUE, [Policy("other", "^other$", {"delivery-limit": 1})], "3.10.8") is None


def test_only_the_policy_of_the_highest_priority_counts() -> None:
    low = Policy("low", ".*", {"delivery-limit": 3}, priority=0)
    high = Policy("high", ".*", {"max-length": 3}, "all", priority=99)

    assert delivery_limit(QUEUE, [low, OURS], "4.0.5") == 2_000_000_000
    assert delivery_limit(QUEUE, [low, OURS, high], "4.0.5") == 20
    assert delivery_limit(QUEUE, [Policy("for others", ".*", {"delivery-limit": 3}, "exchanges")], "3.10.8") is None


def test_of_argument_and_policy_the_lower_counts() -> None:
    queue = Queue("payments.dlq", arguments={"x-delivery-limit": 5})

    assert delivery_limit(queue, [OURS], "4.0.5") == 5


def test_minus_one_is_no_limit() -> None:
    unlimited = Policy("none", ".*", {"delivery-limit": -1})

    assert delivery_limit(QUEUE, [unlimited], "4.0.5") is None
    assert delivery_limit(Queue("payments.dlq", arguments={"x-delivery-limit": 5}), [unlimited], "4.0.5") == 5
