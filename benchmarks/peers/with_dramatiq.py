"""Dramatiq. In: `BENCH_AMQP_URL`. Out: messages published with confirms; a worker that counts them."""

from __future__ import annotations

import os
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from benchmarks.peers.publishing import from_threads
from benchmarks.protocol import Tally


class QuorumBroker(RabbitmqBroker):  # type: ignore[misc]  # untyped where mypy runs
    """Dramatiq has no setting for the type of its queues."""

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        return {**super()._build_queue_arguments(queue_name), "x-queue-type": "quorum"}


# Of its middleware only what makes it at least once: retries. The rest costs time and does nothing here.
broker = QuorumBroker(
    url=os.environ["BENCH_AMQP_URL"], confirm_delivery=True, middleware=[dramatiq.middleware.Retries(max_retries=3)]
)
dramatiq.set_broker(broker)
tally = Tally()


def handle(placed: dict[str, Any]) -> None:
    """Nothing, counted."""
    tally.add()


actor = dramatiq.actor(handle, actor_name="order_placed", queue_name="bench")

if __name__ == "__main__":
    broker.declare_queue("bench", ensure=True)
    from_threads(actor.send)
