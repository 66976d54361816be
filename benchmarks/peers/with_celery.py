"""Celery. In: `BENCH_AMQP_URL`. Out: tasks published with confirms; a worker that counts them."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from benchmarks.peers.publishing import from_threads
from benchmarks.protocol import Tally

app = Celery("bench", broker=os.environ["BENCH_AMQP_URL"])
app.conf.update(
    broker_transport_options={"confirm_publish": True},
    task_default_queue_type="quorum",
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=128,  # its guide on optimizing: 64 or 128 for many short tasks
    worker_disable_rate_limits=True,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
)
tally = Tally()


def handle(placed: dict[str, Any]) -> None:
    """Nothing, counted."""
    tally.add()


task = app.task(name="order.placed")(handle)

if __name__ == "__main__":
    from_threads(lambda placed: task.delay(placed))
