"""The application behind the gateway in these tests: one event type with a model, one without, one subscription."""

from __future__ import annotations

from pathlib import Path

TOPOLOGY = """
version: 1
exchanges:
  events: {type: topic}
events:
  order.created: {exchange: events, model: "shop:Order"}
  note.taken: {exchange: events}
subscriptions:
  billing:
    events: [order.created]
    handler: shop
    retry: {attempts: 2, delays: [30s]}
"""
HANDLERS = """
from pydantic import BaseModel, Field
from pipeline import Event, Reject, Worker

worker = Worker("billing")


class Order(BaseModel):
    number: int = Field(gt=0)
    note: str = ""


@worker.handle("order.created")
async def bill(event: Event[Order]) -> dict[str, int]:
    if event.data.note == "reject":
        raise Reject("nobody may buy this")
    if event.data.note == "fail":
        raise RuntimeError("the bank is closed")
    return {"billed": event.data.number}
"""


def write(folder: Path) -> None:
    """The files."""
    (folder / "topology.yaml").write_text(TOPOLOGY)
    (folder / "shop.py").write_text(HANDLERS)
