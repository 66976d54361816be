"""What handlers return, through a real worker: all that one event writes is kept together or not at all."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.application import Application
from tests.support.broker import TestVhost
from tests.support.rabbit import rabbit

TOPOLOGY = """\
version: 1
exchanges:
  events: {type: topic}
events:
  order.created: {exchange: events}
  order.counted: {exchange: events}
  payment.taken: {exchange: events}
subscriptions:
  payments:
    events: [order.created, order.counted]
    handler: handlers
    retry: {attempts: 2, delays: [50ms]}
queues:
  taken: {type: quorum}
bindings:
  - {exchange: events, queue: taken, routing_key: payment.taken}
"""
HANDLERS = """\
from sqlmodel import Field, SQLModel
from pipeline import Event, Publish, Worker

worker = Worker("payments")

class Payment(SQLModel, table=True):
    card: int = Field(primary_key=True)
    order_id: int

@worker.handle("order.created")
def pay(event: Event[int]):
    return [Payment(card=event.data % 40, order_id=event.data), Publish("payment.taken", event.data)]

@worker.handle("order.counted")
async def count(events: list[Event[int]]):
    return [{"counted": event.data, "of": len(events)} for event in events]
"""


async def test_an_event_whose_rows_are_refused_leaves_nothing_and_the_others_everything(
    vhost: TestVhost, tmp_path: Path
) -> None:
    # Given 50 orders, of which ten want a primary key that another has, and 50 for a batch handler
    app = Application(vhost, tmp_path)
    app.write("topology.yaml", TOPOLOGY)
    app.write("handlers.py", HANDLERS)
    app.write("orders.jsonl", "".join(f"{number}\n" for number in range(50)))
    await app.apply()
    await app.good("publish", "order.created", "--file", "orders.jsonl")
    await app.good("publish", "order.counted", "--file", "orders.jsonl")

    # When they are handled
    await app.good("worker", "start", "--until-empty")

    # Then 40 of the orders are paid, with a follow-up event each
    rows = app.rows("payments", "SELECT card, order_id FROM payment")
    paid = {order_id for _, order_id in rows}
    assert len(rows) == 40
    assert {int(body) for _, body in app.take_ids("taken", 100)} == paid

    # And the others are dead letters that name the constraint; nothing of them was written or published
    letters = (await app.good("dlq", "show", "payments", "--json")).json()
    assert len(letters) == 10
    assert {letter["attempts"] for letter in letters} == {2}
    assert {letter["error"] for letter in letters} == {"pipeline.errors.RowRejected"}
    assert "UNIQUE constraint failed: payment.card" in letters[0]["message"]
    async with rabbit(vhost) as broker:
        dead = {int(message.body) for message in await broker.take("payments.dlq")}
    assert dead == set(range(50)) - paid

    # And what is no row is in the table of results, one for each event of a batch
    results = [json.loads(value) for (value,) in app.rows("payments", "SELECT value FROM pipeline_result")]
    assert {result["counted"] for result in results} == set(range(50))
    assert max(result["of"] for result in results) > 1
    assert app.count("payments") == 40 + 50
    assert app.count("payments", "pipeline_outbox") == 0
