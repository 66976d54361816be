"""The application of the cluster tests: payments with trouble in them, stock in order, and a log of all events.

In: a virtual host of a cluster. Out: events that are published until each is confirmed, and the books.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline.amqp.publisher import PartlyPublished, Publisher
from pipeline.amqp.stream import read_stream
from pipeline.event import Event
from tests.support.application import Application
from tests.support.broker import TestVhost, wait_until_registered
from tests.support.cluster import SIZE, Cluster
from tests.support.topologies import until

PATIENCE = 120.0  # seconds for anything that must come
SKUS = 20  # articles: a round of publishing has one event of each
TOPOLOGY = """\
version: 1
exchanges:
  events: {type: topic}
event_log: {exchange: events}
events:
  order.created: {exchange: events}
subscriptions:
  payments:
    events: [order.created]
    handler: handlers
    retry: {attempts: 3, delays: [200ms]}
  stock:
    events: [order.created]
    handler: handlers
    order_by: data.sku
    partitions: 4
    retry: {attempts: 3, delays: [50ms]}
"""
# Rows without a key of their own: one that is written twice is there twice.
HANDLERS = """\
import time
from sqlmodel import Field, SQLModel
from pipeline import Context, Event, Reject, Retry, Worker

class Payment(SQLModel, table=True):
    row: int | None = Field(default=None, primary_key=True)
    number: int
    sku: int
    at: float

class Move(SQLModel, table=True):
    row: int | None = Field(default=None, primary_key=True)
    number: int
    sku: int
    at: float

payments = Worker("payments", tables=[Payment])
stock = Worker("stock", tables=[Move])

@payments.handle("order.created")
async def pay(event: Event[dict], context: Context):
    number, sku = event.data["number"], event.data["sku"]
    if sku == 1 and number % 5 == 0:
        raise Reject("stolen")
    if sku == 2 and context.attempt < 3:
        raise Retry("the bank is slow")
    return Payment(number=number, sku=sku, at=time.time())

@stock.handle("order.created")
async def move(event: Event[dict], context: Context):
    return Move(number=event.data["number"], sku=event.data["sku"], at=time.time())
"""


@dataclass
class Market:
    """The application. An event's id is `SKU-ROUND`."""

    cluster: Cluster
    app: Application
    rounds: int = 0  # all of whose events are confirmed
    confirmed_at: list[float] = field(default_factory=list)  # when each round was

    @property
    def survivor(self) -> TestVhost:
        """The virtual host, by a node that runs."""
        return self.cluster.seen_from(self.app.vhost, self.cluster.alive[0])

    @property
    def orders(self) -> set[tuple[int, int]]:
        """(article, round) of all that is confirmed."""
        return {(sku, number) for sku in range(SKUS) for number in range(self.rounds)}

    @property
    def stolen(self) -> set[tuple[int, int]]:
        """Those that must end as dead letters of payments."""
        return {(sku, number) for sku, number in self.orders if sku == 1 and number % 5 == 0}

    def queues(self) -> list[dict[str, Any]]:
        """The queues as a node that runs sees them: name, type, leader, members, online."""
        found: list[dict[str, Any]] = self.cluster.ask(f"/api/queues/{self.app.vhost.name}")
        return found

    async def leader(self, queue: str) -> int:
        """The number of the node that leads a queue: one that lives."""

        async def found() -> str:
            name = {each["name"]: each.get("leader") or each.get("node") for each in self.queues()}[queue]
            return name if name and self.cluster.number_of(name) in self.cluster.alive else ""

        return self.cluster.number_of(await until(found, f"a leader of {queue}", PATIENCE))

    async def apply(self) -> None:
        """Declare everything, and wait until no node forgets it when it is killed."""
        await self.app.good("topology", "apply")
        queues = [each["name"] for each in self.queues() if each["type"] == "quorum"]
        for member in self.cluster.members:
            await asyncio.to_thread(wait_until_registered, member, self.app.vhost.name, queues, PATIENCE)

    async def whole(self) -> None:
        """Wait until every queue knows a leader, and all of its members to be there."""

        async def found() -> bool:
            queues = self.queues()
            led = all(each["type"] == "stream" or each.get("leader") for each in queues)
            return led and all(len(each.get("online", ())) == SIZE for each in queues)

        await until(found, "every queue is on every node", PATIENCE)

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """Publish round after round for the block, each again and again under the same ids until it is confirmed."""
        ended = asyncio.Event()

        async def publish() -> None:
            async with Publisher(self.app.settings.topology, settings=self.app.settings) as publisher:
                while not ended.is_set():
                    await self._publish_round(publisher)

        task = asyncio.create_task(publish())
        try:
            yield
        finally:
            ended.set()
            async with asyncio.timeout(PATIENCE):
                await task

    async def _publish_round(self, publisher: Publisher) -> None:
        events = [
            Event("order.created", {"sku": sku, "number": self.rounds}, f"{sku}-{self.rounds}") for sku in range(SKUS)
        ]
        while events:
            try:
                await publisher.publish_many(events, deadline=2)
            except PartlyPublished as partly:
                events = [events[index] for index in sorted(partly.errors)]
            else:
                events = []
        self.rounds += 1
        self.confirmed_at.append(time.time())
        await asyncio.sleep(0.02)  # the books are to stay short

    async def grown(self, rounds: int = 20) -> None:
        """Wait until so many more rounds are confirmed, and payments of a round behind these are made."""
        aim = self.rounds + rounds

        async def reached() -> bool:
            return self.rounds >= aim and self.last("payment") >= aim and self.last("move") >= aim

        await until(reached, f"round {aim} is published and processed", PATIENCE)

    def last(self, table: str) -> int:
        """The latest round with a row."""
        rows = self.app.rows(SUBSCRIPTION[table], f"SELECT max(number) FROM {table}")  # noqa: S608
        return int(rows[0][0] or 0)

    def silence(self, table: str, since: float) -> float:
        """The longest time without a new row since then, in seconds."""
        rows = self.app.rows(SUBSCRIPTION[table], f"SELECT at FROM {table} WHERE at > {since} ORDER BY at")  # noqa: S608
        return longest_gap([since, *(at for (at,) in rows)])

    def silence_of_confirms(self, since: float) -> float:
        """The longest time without a confirmed round since then, in seconds."""
        return longest_gap([since, *(at for at in self.confirmed_at if at > since)])

    async def check_the_books(self) -> None:
        """Wait until every confirmed event has ended; then each did so once, from databases and broker."""

        async def ended() -> bool:
            paid, moved = self.app.count("payments", "payment"), self.app.count("stock", "move")
            return paid >= len(self.orders - self.stolen) and moved >= len(self.orders)

        try:
            await until(ended, "every confirmed event has ended", PATIENCE)
        except AssertionError as late:
            raise AssertionError(f"{late}; {self._whereabouts()}") from None
        paid = Counter(self.app.rows("payments", "SELECT sku, number FROM payment"))
        assert set(paid) == self.orders - self.stolen, "events are lost"
        assert set(paid.values()) == {1}, "payments are there twice"
        moves = defaultdict(list)
        for sku, number in self.app.rows("stock", "SELECT sku, number FROM move ORDER BY row"):
            moves[sku].append(number)
        assert moves == {sku: list(range(self.rounds)) for sku in range(SKUS)}, "order is lost"
        seen = Application(self.survivor, self.app.folder)
        dead = [json.loads(body) for _, body in seen.take_ids("payments.dlq", 10 * len(self.orders))]
        assert {(each["sku"], each["number"]) for each in dead} == self.stolen
        logged = [each async for batch in read_stream(self.app.settings, "events.log") for each in batch]
        assert {each.properties.message_id for each in logged} >= {f"{sku}-{number}" for sku, number in self.orders}

    def _whereabouts(self) -> str:
        """What has not ended, and what lies where."""
        paid = set(self.app.rows("payments", "SELECT sku, number FROM payment"))
        moved = set(self.app.rows("stock", "SELECT sku, number FROM move"))
        keys = ("name", "leader", "online", "messages_ready", "messages_unacknowledged", "messages_dlx", "consumers")
        queues = [{key: each.get(key) for key in keys} for each in self.queues()]
        return f"not paid: {self.orders - self.stolen - paid}; not moved: {self.orders - moved}; queues: {queues}"


SUBSCRIPTION = {"payment": "payments", "move": "stock"}


def longest_gap(times: Sequence[float]) -> float:
    """Seconds between two that follow each other."""
    return max((after - before for before, after in pairwise(times)), default=0.0)


def open_market(cluster: Cluster, folder: Path) -> Market:
    """The files, in a new virtual host."""
    app = Application(cluster.new_vhost(), folder)
    app.write("topology.yaml", TOPOLOGY)
    app.write("handlers.py", HANDLERS)
    return Market(cluster, app)
