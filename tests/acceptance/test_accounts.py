"""`pipeline accounts`: it balances when every event ended once, and says so when one is lost or ended twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.message import FORCED
from pipeline.properties import Properties
from tests.support.application import Application
from tests.support.broker import TestVhost
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
    retry: {attempts: 1}
queues:
  events.log: {type: stream}
bindings:
  - {exchange: events, queue: events.log, routing_key: "#"}
"""
HANDLERS = """\
from pipeline import Event, Reject, Worker

worker = Worker("payments")

@worker.handle("order.created")
async def pay(event: Event[int]) -> None:
    if event.data == 3:
        raise Reject("stolen")
"""
DEEP: dict[str, Any] = {}
for _ in range(40):
    DEEP = {"deeper": DEEP}


@pytest.fixture
async def app(vhost: TestVhost, tmp_path: Path) -> Application:
    """Five published orders, of which the third will be rejected."""
    app = Application(vhost, tmp_path)
    app.write("topology.yaml", TOPOLOGY)
    app.write("handlers.py", HANDLERS)
    await app.apply()
    await app.put_raw("order.created", *(order(number) for number in range(1, 6)), exchange="events")
    return app


def order(number: int) -> tuple[Properties, bytes]:
    """Properties and body of an order."""
    return Properties(message_id=f"order-{number}", type="order.created"), str(number).encode()


async def test_books_that_balance(app: Application) -> None:
    # Given messages as well that nobody can process, having no id, or whose properties or time can't be read
    await app.put_raw(
        "order.created",
        (Properties(type="order.created"), b"1"),
        (Properties(message_id="hidden", headers={"deep": DEEP}), b"1"),
        (Properties(message_id="odd-time", timestamp=2**63), b"1"),
        exchange="events",
    )
    # When all have ended
    await app.good("worker", "start", "--until-empty")

    # Then the books balance, for people and for scripts
    shown = await app.good("accounts")
    assert "payments" in shown.out
    (account,) = (await app.good("accounts", "--json")).json()["accounts"]
    assert {name: account[name] for name in ("published", "processed", "dead_lettered", "missing", "twice")} == {
        "published": 8,
        "processed": 4,
        "dead_lettered": 4,
        "missing": 0,
        "twice": 0,
    }


async def test_a_dead_letter_of_a_forced_replay_is_in_no_book(app: Application) -> None:
    # Given events that are processed, one of which failed when somebody had it processed once more
    await app.good("worker", "start", "--until-empty")
    properties, body = order(2)
    again = replace(properties, headers={**properties.headers, FORCED: True})
    await app.put_raw("payments.dlq", (again, body))

    # Then the books balance
    (account,) = (await app.good("accounts", "--json")).json()["accounts"]
    assert (account["twice"], account["missing"]) == (0, 0)


async def test_events_that_are_nowhere_or_ended_twice(app: Application) -> None:
    # Given one order that was lost from the queue, and one whose copy is a dead letter though it is processed
    async with rabbit(app.vhost) as broker:
        queue = await broker.channel.get_queue("payments")
        assert (await queue.get(no_ack=True)).message_id == "order-1"
    await app.good("worker", "start", "--until-empty")
    await app.put_raw("payments.dlq", order(2))

    # Then both are told
    done = await app.run("accounts")
    assert done.code == 1
    assert "payments: 1 events are nowhere, e.g. order-1" in done.out
    assert "payments: 1 events are processed and dead letters as well" in done.out
    assert (await app.run("accounts", "--json")).json()["balance"] is False


async def test_accounts_need_a_record_of_what_was_published(app: Application) -> None:
    app.write("topology.yaml", TOPOLOGY.partition("queues:")[0])
    done = await app.run("accounts")
    assert done.code == 2
    assert done.err.startswith("error: accounts need to know what was published: declare the event log")
