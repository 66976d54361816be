"""Broker or database can't take what must be kept: the worker waits, no event pays for it, and nothing is lost."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.support.application import Application
from tests.support.broker import TestVhost, manage
from tests.support.rabbit import rabbit

TOPOLOGY = """\
version: 1
exchanges:
  events: {type: topic}
events:
  order.created: {exchange: events}
subscriptions:
  payments:
    events: [order.created]
    handler: handlers
    retry: {attempts: 2, delays: [100ms]}
"""
HANDLERS = """\
from sqlmodel import Field, SQLModel
from pipeline import Context, Event, Reject, Worker

worker = Worker("payments")

class Payment(SQLModel, table=True):
    row: int | None = Field(default=None, primary_key=True)
    number: int
    attempt: int

@worker.handle("order.created")
async def pay(event: Event[int], context: Context) -> Payment:
    if event.data < 0:
        raise Reject("stolen")
    if event.data % 10 == 9 and context.attempt == 1:
        raise ValueError("not at once")
    return Payment(number=event.data, attempt=context.attempt)
"""
ORDERS = 50
SOON = 9  # the first order that is tried twice


async def application(vhost: TestVhost, folder: Path) -> Application:
    """An application whose topology is on the broker."""
    app = Application(vhost, folder)
    app.environ["PIPELINE_DATABASE_URL"] += "?timeout=0.2"  # seconds to wait for a lock before it counts as away
    app.write("topology.yaml", TOPOLOGY)
    app.write("handlers.py", HANDLERS)
    await app.apply()
    return app


async def publish(app: Application, *numbers: int) -> None:
    """Publish orders with these numbers."""
    app.write("orders.jsonl", "".join(f"{number}\n" for number in numbers))
    await app.good("publish", "order.created", "--file", "orders.jsonl")


async def test_the_database_is_away(vhost: TestVhost, tmp_path: Path) -> None:
    # Given a worker whose database somebody else has locked
    app = await application(vhost, tmp_path)
    async with app.worker() as running, rabbit(vhost) as broker:
        await publish(app, 0)
        await app.until_count("payments", 1, "payment")
        with closing(sqlite3.connect(tmp_path / "data" / "payments.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            # When orders come, then the worker waits with them in hand
            await publish(app, *range(1, ORDERS))
            await running.until_said("waiting for the database", times=2)
            await broker.until_count("payments", 0)
            assert app.count("payments", "payment") == 1
            other.execute("ROLLBACK")

        # And when the database is back, then all are processed, each with the attempts that are its own
        await app.until_count("payments", ORDERS, "payment")
        assert await running.drain() == 0
        assert running.said("a worker process died, starting it again") == []
        assert await broker.count("payments.dlq") == 0
    attempts = dict(app.rows("payments", "SELECT number, attempt FROM payment"))
    assert attempts == {number: 2 if number % 10 == SOON else 1 for number in range(ORDERS)}


async def test_what_is_not_committed_is_not_acked(vhost: TestVhost, tmp_path: Path) -> None:
    # Given a worker that has handled all orders and can't commit them
    app = await application(vhost, tmp_path)
    async with app.worker() as running, rabbit(vhost) as broker:
        await publish(app, 0)
        await app.until_count("payments", 1, "payment")
        with closing(sqlite3.connect(tmp_path / "data" / "payments.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            await publish(app, *range(1, SOON))
            await running.until_said("waiting for the database")
            await broker.until_count("payments", 0)

            # When it is killed, then all of them are back in the queue
            await running.kill()
            await broker.until_count("payments", SOON - 1)
    assert app.count("payments", "payment") == 1


async def test_the_retry_queue_is_gone(vhost: TestVhost, tmp_path: Path) -> None:
    # Given a worker whose retry queue somebody deleted
    app = await application(vhost, tmp_path)
    async with app.worker() as running, rabbit(vhost) as broker:
        await running.until_said("working")
        await broker.delete("payments.retry.100ms")
        # When an event must be retried
        await publish(app, 1, SOON, 2)
        await running.until_said("copies not confirmed, trying again")

        # Then others are processed, and its original is not settled: a worker that is killed now has lost nothing
        await app.until_count("payments", 2, "payment")
        await running.kill()
        await broker.until_count("payments", 1)

        # And when the queue is declared again, then it goes its way, with no attempt lost
        await app.apply()
        await app.good("worker", "start", "--until-empty")
        assert await broker.count("payments.dlq") == 0
    assert dict(app.rows("payments", "SELECT number, attempt FROM payment")) == {1: 1, 2: 1, SOON: 2}


async def test_the_dead_letter_queue_is_full(vhost: TestVhost, tmp_path: Path) -> None:
    # Given a dead-letter queue that takes no more
    app = await application(vhost, tmp_path)
    policies = f"/api/policies/{vhost.name}/full"
    full = {
        "pattern": "^payments.dlq$",
        "apply-to": "queues",
        "priority": 99,
        "definition": {"max-length": 1, "overflow": "reject-publish"},
    }
    async with app.worker() as running, rabbit(vhost) as broker:
        await running.until_said("working")
        await broker.put("payments.dlq", b"old", b"older")
        manage(vhost.management_url, "PUT", policies, full)
        # When an event must be dead-lettered
        await publish(app, 1, -1, 2)
        await running.until_said("copies not confirmed, trying again")

        # Then it is not lost: its original stays unsettled, while others are processed
        await app.until_count("payments", 2, "payment")
        assert await broker.count("payments.dlq") == 2

        # And when there is room again, then it is a dead letter, once
        assert [body for _, body in app.take_ids("payments.dlq", 2)] == ["old", "older"]
        await broker.until_count("payments.dlq", 1)
        assert await running.drain() == 0
        assert await broker.count("payments") == 0
        assert [message.body for message in await broker.take("payments.dlq")] == [b"-1"]
