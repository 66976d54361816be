"""An ordered worker inside the test's own process, on a real broker and a real database. In: a function. Out: it works.

Several of them beside each other are as many processes, as far as broker and database can tell.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import Worker
from pipeline.amqp.publisher import Publisher
from pipeline.amqp.session import Session
from pipeline.amqp.verify import verify
from pipeline.event import Event
from pipeline.settings import Settings, load_settings
from pipeline.store import Store
from pipeline.topology.load import load_text
from pipeline.topology.model import Topology
from pipeline.topology.partitions import work_queues
from pipeline.worker.loading import LoadedWorker
from pipeline.worker.ordered.worker import OrderedWorker
from pipeline.worker.presence import this_process
from tests.support.broker import TestVhost, manage
from tests.support.topologies import applied, until

TOPOLOGY = """\
version: 1
exchanges: {{events: {{type: topic}}}}
events: {{stock.moved: {{exchange: events}}}}
subscriptions:
  stock: {{events: [stock.moved], handler: h, order_by: data.sku, {more}}}
"""


@dataclass(frozen=True, slots=True)
class Place:
    """A virtual host with the topology, and a database."""

    vhost: TestVhost
    settings: Settings
    topology: Topology
    url: str

    @property
    def partitions(self) -> tuple[str, ...]:
        """The queues."""
        return work_queues(self.topology.subscriptions["stock"])

    async def publish(self, *moves: tuple[str, int]) -> None:
        """Publish (sku, number), in this order; an event's id is `SKU-NUMBER`."""
        async with Publisher(self.topology, self.settings) as publisher:
            await publisher.publish_many(
                [Event("stock.moved", {"sku": sku, "number": n}, f"{sku}-{n}") for sku, n in moves], deadline=60
            )

    def look(self, sql: str) -> list[tuple[Any, ...]]:
        """What a query finds in the database."""
        with closing(
            sqlite3.connect(self.url.split("///")[1].split("?")[0].format(subscription="stock"))
        ) as connection:
            return connection.execute(sql).fetchall()

    async def until(self, sql: str, wanted: list[tuple[Any, ...]], deadline: float = 60.0) -> None:
        """Wait until the query finds this."""

        async def found() -> bool:
            return self.look(sql) == wanted

        await until(found, f"{sql}: {wanted}", deadline)

    def letters(self) -> list[str]:
        """Ids in the dead-letter queue, which stay there."""
        ask = {"count": 1000, "ackmode": "ack_requeue_true", "encoding": "auto"}
        found = manage(self.vhost.management_url, "POST", f"/api/queues/{self.vhost.name}/stock.dlq/get", ask)
        assert isinstance(found, list)
        return [each["properties"].get("message_id", "") for each in found]


async def place_at(vhost: TestVhost, folder: Path, more: str = "partitions: 1") -> Place:
    """Apply the topology; `more` are keys of the subscription."""
    settings = load_settings(
        {
            "PIPELINE_AMQP_URL": vhost.amqp_url,
            "PIPELINE_MANAGEMENT_URL": vhost.management_url,
            "PIPELINE_STATE_DIR": str(folder / "state"),
        }
    )
    topology = load_text(TOPOLOGY.format(more=more)).topology
    assert (await applied(settings, topology)).exit_code == 0
    return Place(vhost, settings, topology, f"sqlite+aiosqlite:///{folder}/data/{{subscription}}.db?timeout=30")


@dataclass(frozen=True, slots=True)
class Inside:
    """A worker that runs."""

    worker: OrderedWorker
    task: asyncio.Task[None]

    async def crash(self) -> None:
        """End it in the middle: for broker and database as a kill does it."""
        self.task.cancel()
        await asyncio.wait([self.task])


@asynccontextmanager
async def at_work(place: Place, handle: Callable[..., Any], tables: Sequence[type[Any]] = ()) -> AsyncIterator[Inside]:
    """A worker for the block; then it ends in order, unless it has crashed."""
    subscription = place.topology.subscriptions["stock"]
    registered = Worker("stock", tables=tables)
    registered.handle("stock.moved")(handle)
    async with AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(Publisher(place.topology, place.settings))
        session = await stack.enter_async_context(Session(place.settings, "test"))
        store = await Store.open(place.url, "stock", tables)
        stack.push_async_callback(store.close)
        payloads = {"stock.moved": publisher.codec.payload("stock.moved")}
        loaded = LoadedWorker(subscription, dict(registered.handlers), payloads, tuple(tables))
        check = partial(verify, place.settings, place.topology, ["stock"])
        worker = OrderedWorker(place.settings, loaded, store, session, publisher, check, this_process(["stock"]))
        await worker.start()
        task = asyncio.create_task(worker.run(), name="worker under test")
        try:
            yield Inside(worker, task)
            await worker.stop()
            with suppress(asyncio.CancelledError):
                await task
        finally:
            task.cancel()
            await asyncio.wait([task])
