"""The application of the ordering tests: stock movements by article, and a ledger whose rows tell their order.

In: a virtual host and a folder. Out: an application, its events, and the sequence of effects of each key.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.amqp.publisher import Publisher
from pipeline.dead_letters import peek
from pipeline.event import Event
from pipeline.topology.load import load_topology
from tests.support.application import Application
from tests.support.broker import TestVhost

TOPOLOGY = """\
version: 1
exchanges:
  events: {{type: topic}}
events:
  stock.moved: {{exchange: events}}
subscriptions:
  stock:
    events: [stock.*]
    handler: handlers
    order_by: data.sku
    partitions: {partitions}
    on_dead: {on_dead}
    retry: {{attempts: 3, delays: [50ms]}}
    prefetch: 200
queues:
  published: {{type: stream}}
bindings:
  - {{exchange: events, queue: published, routing_key: '#'}}
"""
# `row` counts up with each row written: the order of effects. `fails` says what an event is to meet with.
HANDLERS = """\
import asyncio
import os
import signal
from pathlib import Path
from sqlmodel import Field, SQLModel
from pipeline import Context, Event, Reject, Worker

class Move(SQLModel, table=True):
    row: int | None = Field(default=None, primary_key=True)
    sku: str
    number: int

worker = Worker("stock", tables=[Move])

@worker.handle("stock.moved")
async def move(event: Event[dict], context: Context):
    number, fails = event.data["number"], event.data.get("fails", "")
    if fails == "once" and context.attempt == 1:
        raise RuntimeError("not now")
    if fails == "always":
        raise Reject("never")
    if fails == "until mended" and not Path("mended").exists():
        raise Reject("not before it is mended")
    if fails == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if number % 7 == 0:
        await asyncio.sleep(0.002)
    return Move(sku=event.data["sku"], number=number)
"""


@dataclass(frozen=True, slots=True)
class Stock:
    """The application. An event's id is `SKU-NUMBER`."""

    app: Application

    def topology(self, partitions: int = 8, on_dead: str = "continue") -> None:
        """Write the topology file."""
        self.app.write("topology.yaml", TOPOLOGY.format(partitions=partitions, on_dead=on_dead))

    async def publish(self, moves: Iterable[tuple[str, int, str]]) -> None:
        """Publish (sku, number, how it fails), in this order."""
        events = [
            Event("stock.moved", {"sku": sku, "number": number, "fails": fails}, f"{sku}-{number}")
            for sku, number, fails in moves
        ]
        settings = self.app.settings
        async with Publisher(load_topology(settings.topology).topology, settings) as publisher:
            for start in range(0, len(events), 500):
                await publisher.publish_many(events[start : start + 500], deadline=60)

    def effects(self) -> dict[str, list[int]]:
        """The numbers written for each key, in the order in which they were."""
        found: dict[str, list[int]] = {}
        for sku, number in self.app.rows("stock", "SELECT sku, number FROM move ORDER BY row"):
            found.setdefault(sku, []).append(number)
        return found

    def dead(self) -> list[str]:
        """Ids in the dead-letter queue, taken out."""
        return [event_id for event_id, _ in self.app.take_ids("stock.dlq", 100_000)]

    async def letters(self) -> list[tuple[str, str]]:
        """(id, reason) of the dead letters, which stay there, in the order of their death."""
        settings = self.app.settings
        subscription = load_topology(settings.topology).topology.subscriptions["stock"]
        return [(letter.id, letter.reason) for letter in await peek(settings, subscription)]

    async def until_moved(self, count: int) -> None:
        """Wait until so many events have had their effects."""
        await self.app.until_count("stock", count, "move")


def open_stock(vhost: TestVhost, folder: Path, partitions: int = 8, on_dead: str = "continue") -> Stock:
    """Its files."""
    stock = Stock(Application(vhost, folder))
    stock.app.write("handlers.py", HANDLERS)
    stock.topology(partitions, on_dead)
    return stock
