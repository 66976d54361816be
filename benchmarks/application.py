"""What the measured workers run: one event type, four subscriptions, a result for each event.

Imported by the worker through the topology that `place` writes; nothing here knows of the benchmark.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field
from sqlmodel import Field as Column
from sqlmodel import SQLModel

from benchmarks.payload import EVENT_TYPE
from pipeline import Event, Worker

SUBSCRIPTIONS = ("billing", "stock", "mail", "search")
ROWS = "ledger"  # the subscription whose handler returns a row of a table of its own


class OrderPlaced(BaseModel):
    """A customer ordered something."""

    number: int
    customer: str
    sku: str
    quantity: int = Field(gt=0)
    amount: int = Field(gt=0)
    currency: str
    placed_at: str
    note: str


class Entry(SQLModel, table=True):
    """One order in the ledger."""

    number: int = Column(primary_key=True)
    customer: str
    total: int


async def total(event: Event[OrderPlaced]) -> dict[str, Any]:
    """A JSON-able result, kept in the generic result table."""
    placed = event.data
    return {"number": placed.number, "customer": placed.customer, "total": placed.quantity * placed.amount}


billing, stock, mail, search = (Worker(name) for name in SUBSCRIPTIONS)
for each in (billing, stock, mail, search):
    each.handle(EVENT_TYPE)(total)

ledger = Worker(ROWS)


@ledger.handle(EVENT_TYPE)
async def entry(event: Event[OrderPlaced]) -> Entry:
    """A row of a table of its own."""
    placed = event.data
    return Entry(number=placed.number, customer=placed.customer, total=placed.quantity * placed.amount)
