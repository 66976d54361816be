"""An application with an event log: two subscriptions that take the same events. In: a folder and a virtual host."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from pipeline.amqp.publisher import Publisher
from pipeline.event import Event
from pipeline.topology.load import load_topology
from tests.support.application import Application
from tests.support.broker import TestVhost

FILE = """\
version: 1
exchanges:
  events: {type: topic}
event_log: {exchange: events}
events:
  order.created: {}
  order.paid: {}
subscriptions:
  ledger:
    events: [order.created, order.paid]
    handler: ledger
    retry: {attempts: 2, delays: [100ms]}
  neighbour: {events: [order.created, order.paid]}
"""
# `times` counts how often the handler's effects were committed.
HANDLER = """\
from sqlalchemy.dialects.sqlite import insert
from sqlmodel import Field, SQLModel

from pipeline import Event, Worker

worker = Worker("ledger")


class Times(SQLModel, table=True):
    id: str = Field(primary_key=True)
    times: int


@worker.handle("order.created", "order.paid")
def count(event: Event[dict]) -> object:
    table = Times.__table__
    row = insert(table).values(id=event.id, times=1)
    return row.on_conflict_do_update(index_elements=["id"], set_={"times": table.c.times + 1})
"""


def ledger(vhost: TestVhost, folder: Path, topology: str = FILE) -> Application:
    """The application, its files written."""
    application = Application(vhost, folder)
    application.write("topology.yaml", topology)
    application.write("ledger.py", HANDLER)
    return application


def ids(count: int, start: int = 0) -> list[str]:
    return [f"e{number:06}" for number in range(start, start + count)]


async def publish(application: Application, event_ids: Iterable[str], event_type: str = "order.created") -> None:
    """Publish an event for each id, confirmed."""
    topology = load_topology(application.settings.topology).topology
    async with Publisher(topology, application.settings) as publisher:
        events = [Event(event_type, {"amount": int(each[1:])}, each) for each in event_ids]
        for at in range(0, len(events), 2000):
            await publisher.publish_many(events[at : at + 2000])


def times(application: Application) -> dict[str, int]:
    """How often each event's effects were committed."""
    return dict(application.rows("ledger", "SELECT id, times FROM times"))


async def settled(application: Application, queue: str, deadline: float = 60) -> None:
    """Wait until nothing is ready or in hand in a queue, twice in a row: the statistics lag."""
    async with asyncio.timeout(deadline):
        quiet = 0
        while quiet < 2:
            state = application.queue(queue)
            quiet = quiet + 1 if state.get("messages", 1) == 0 else 0
            await asyncio.sleep(0.3)
