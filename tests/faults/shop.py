"""The application that the fault tests harm: payments with trouble in them, and a ledger of what was paid.

In: a virtual host and a folder. Out: an application, its events, and the books: where each event ended.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tests.support.application import Application
from tests.support.broker import TestVhost

TOPOLOGY = """\
version: 1
exchanges:
  events: {type: topic}
events:
  order.created: {exchange: events, model: "handlers:Order"}
  payment.taken: {exchange: events}
subscriptions:
  payments:
    events: [order.created]
    handler: handlers
    retry: {attempts: 3, delays: [200ms]}
    prefetch: 200
    concurrency: 20
  ledger:
    events: [payment.taken]
    handler: handlers
    retry: {attempts: 3, delays: [200ms]}
"""
# Rows without a key of their own: one that is written twice is there twice.
HANDLERS = """\
import asyncio
from pydantic import BaseModel
from sqlmodel import Field, SQLModel
from pipeline import Context, Event, Publish, Reject, Retry, Worker

class Order(BaseModel):
    number: int

class Payment(SQLModel, table=True):
    row: int | None = Field(default=None, primary_key=True)
    number: int
    attempt: int

class Entry(SQLModel, table=True):
    row: int | None = Field(default=None, primary_key=True)
    number: int

payments = Worker("payments", tables=[Payment])
ledger = Worker("ledger", tables=[Entry])

@payments.handle("order.created")
async def pay(event: Event[Order], context: Context):
    number = event.data.number
    await asyncio.sleep(0.01)
    if number % 50 == 1:
        raise Reject("stolen")
    if number % 50 == 2 and context.attempt < 3:
        raise Retry("the bank is slow")
    return [Payment(number=number, attempt=context.attempt), Publish("payment.taken", {"number": number})]

@ledger.handle("payment.taken")
async def enter(event: Event[dict]):
    return Entry(number=event.data["number"])
"""


@dataclass(frozen=True, slots=True)
class Shop:
    """The application and what it must come to."""

    app: Application
    orders: int

    @property
    def feed(self) -> str:
        """The file of the orders."""
        return str(self.app.folder / "orders.jsonl")

    @property
    def stolen(self) -> set[int]:
        """Orders that must end as dead letters."""
        return {number for number in range(self.orders) if number % 50 == 1}

    @property
    def paid(self) -> set[int]:
        """Orders that must be paid."""
        return set(range(self.orders)) - self.stolen

    def all_ended(self) -> bool:
        """Whether every order is paid and entered and nothing waits to go out; dead letters come long before."""
        done = self.app.count("ledger") >= len(self.paid) <= self.app.count("payments")
        return done and not self.app.count("payments", "pipeline_outbox")

    def check_the_books(self) -> None:
        """Every order ended once: counted from databases and broker."""
        app = self.app
        for subscription, table in (("payments", "payment"), ("ledger", "entry")):
            numbers = [number for (number,) in app.rows(subscription, f"SELECT number FROM {table}")]  # noqa: S608
            assert set(numbers) == self.paid, f"{subscription}: events are lost"
            assert len(numbers) == len(self.paid), f"{subscription}: rows are there twice"
            assert app.count(subscription) == len(self.paid)
        dead = [json.loads(body)["number"] for _, body in app.take_ids("payments.dlq", 10 * self.orders)]
        # A letter may be there twice: the broker may die between the copy's confirm and the original's ack.
        assert set(dead) == self.stolen
        assert app.take_ids("ledger.dlq", 10) == []
        assert app.count("payments", "pipeline_outbox") == 0


def open_shop(vhost: TestVhost, folder: Path, orders: int) -> Shop:
    """The files of the shop, and a feed of so many orders."""
    app = Application(vhost, folder)
    app.write("topology.yaml", TOPOLOGY)
    app.write("handlers.py", HANDLERS)
    shop = Shop(app, orders)
    with Path(shop.feed).open("w") as feed:
        for number in range(orders):
            event = {
                "specversion": "1.0",
                "id": f"order-{number}",
                "type": "order.created",
                "data": {"number": number},
            }
            feed.write(json.dumps(event) + "\n")
    return shop
