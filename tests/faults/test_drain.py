"""Being told to stop: what is in hand is finished, the rest stays in its queue, the exit code is 0."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from pipeline.broker.processes import is_alive
from tests.support.application import Application
from tests.support.broker import TestVhost
from tests.support.rabbit import Rabbit, rabbit
from tests.support.topologies import until

TOPOLOGY = """\
version: 1
exchanges:
  events: {type: topic}
events:
  order.created: {exchange: events}
  order.noted: {exchange: events}
subscriptions:
  payments:
    events: [order.created, order.noted]
    handler: handlers
    retry: {attempts: 2, delays: [100ms]}
    prefetch: 40
    concurrency: 10
"""
ORDERS = 100
IN_HAND = 40
ASYNC = "async def take(event: Event[int]) -> None:\n    await asyncio.sleep(%s)"
SYNC = "def take(event: Event[int]) -> None:\n    time.sleep(%s)"


async def application(vhost: TestVhost, folder: Path, handler: str) -> Application:
    """An application with so many orders in its queue."""
    app = Application(vhost, folder)
    app.write("topology.yaml", TOPOLOGY)
    app.write(
        "handlers.py",
        "import asyncio, time\nfrom pipeline import Event, Worker\nworker = Worker('payments')\n"
        f"@worker.handle('order.created', 'order.noted')\n{handler}\n",
    )
    app.write("orders.jsonl", "".join(f"{number}\n" for number in range(ORDERS)))
    await app.apply()
    await app.good("publish", "order.created", "--file", "orders.jsonl")
    return app


async def hands_full(broker: Rabbit) -> None:
    """Wait until a worker has as much in hand as it takes."""

    async def full() -> bool:
        return await broker.count("payments") <= ORDERS - IN_HAND

    await until(full, "a worker has its hands full")


async def test_what_is_in_hand_is_finished(vhost: TestVhost, tmp_path: Path) -> None:
    # Given a worker with its hands full
    app = await application(vhost, tmp_path, ASYNC % 0.3)
    async with rabbit(vhost) as broker, app.worker() as running:
        await hands_full(broker)

        # When it is told to stop
        assert await running.drain() == 0

        # Then what it had in hand is processed, and the others wait as if nobody had ever touched them
        assert running.said("draining")
        left = await broker.take("payments")
        processed = app.count("payments")
        assert processed >= IN_HAND
        assert processed + len(left) == ORDERS
        assert not any(message.redelivered for message in left)


@pytest.mark.parametrize("handler", [ASYNC, SYNC])
async def test_what_takes_too_long_goes_back(vhost: TestVhost, tmp_path: Path, handler: str) -> None:
    # Given handlers that would take an hour, and a deadline of half a second
    app = await application(vhost, tmp_path, handler % 3600)
    async with rabbit(vhost) as broker:
        async with app.worker(environ={"PIPELINE_DRAIN_DEADLINE": "0.5"}) as running:
            await hands_full(broker)
            # When it is told to stop, then it ends well by itself soon after the deadline
            told = time.monotonic()
            assert await running.drain() == 0
            assert time.monotonic() - told < 5
            assert running.said("not everything was finished in time; it goes back to its queue")
            assert not running.said("a worker process did not drain in time, killing it")

        # And nothing is lost
        await broker.until_count("payments", ORDERS)
        assert await broker.count("payments.retry.100ms") == await broker.count("payments.dlq") == 0


async def test_workers_drain_when_their_supervisor_is_killed(vhost: TestVhost, tmp_path: Path) -> None:
    # Given two processes at work
    app = await application(vhost, tmp_path, ASYNC % 0.1)
    async with rabbit(vhost) as broker, app.worker("--processes", "2") as running:
        await running.until_said("working", times=2)
        pids = running.pids
        # When their supervisor is killed
        os.kill(running.process.pid, signal.SIGKILL)

        # Then they finish what they have and end
        async def gone() -> bool:
            return not any(is_alive(pid) for pid in pids)

        await until(gone, "both processes have ended")
        assert len(running.said("the supervisor is gone")) == 2
        assert app.count("payments") + await broker.count("payments") == ORDERS
