"""A worker puts results into the cache after their commit, never before, and never waits for it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from pipeline.cache.entry import decode_entry
from tests.support.application import Application
from tests.support.broker import TestVhost
from tests.support.rabbit import rabbit
from tests.support.redis import RedisServer
from tests.support.topologies import until

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
from pipeline import Event, Reject, Worker

worker = Worker("payments")

class Payment(SQLModel, table=True):
    number: int = Field(primary_key=True)

@worker.handle("order.created")
async def pay(event: Event[int]):
    if event.data < 0:
        raise Reject("stolen")
    return Payment(number=event.data) if event.data % 2 else {"paid": event.data}
"""


async def application(vhost: TestVhost, folder: Path, cache_url: str) -> Application:
    app = Application(vhost, folder)
    app.environ["PIPELINE_DATABASE_URL"] += "?timeout=0.2"  # seconds to wait for a lock before it counts as away
    app.environ["PIPELINE_CACHE_URL_PAYMENTS"] = cache_url
    app.write("topology.yaml", TOPOLOGY)
    app.write("handlers.py", HANDLERS)
    await app.apply()
    return app


async def publish(app: Application, *numbers: int) -> None:
    """Publish orders with these numbers, and ids made of them."""
    lines = [{"specversion": "1.0", "id": f"order-{n}", "type": "order.created", "data": n} for n in numbers]
    app.write("orders.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    await app.good("publish", "--file", "orders.jsonl")


async def test_results_are_in_the_cache_once_they_are_committed(
    vhost: TestVhost, tmp_path: Path, redis_server: RedisServer
) -> None:
    # given a worker whose database somebody has locked
    app = await application(vhost, tmp_path, redis_server.url)
    async with app.worker() as running, rabbit(vhost) as broker:
        await publish(app, 0)
        await until(lambda: has_keys(redis_server, 1), "the first result in the cache")
        with closing(sqlite3.connect(tmp_path / "data" / "payments.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")

            # when events are handled and can't be committed, then none of them is in the cache
            await publish(app, 1, 2, 3, 4, -5)
            await running.until_said("waiting for the database", times=2)
            await broker.until_count("payments", 0)
            assert redis_server.ask("KEYS", "*") == ["pipeline:payments:order-0"]
            other.execute("ROLLBACK")

        # and when they are, then those that returned a value are, and only they
        await app.until_count("payments", 5)
        await until(lambda: has_keys(redis_server, 3), "three results in the cache")
        assert await running.drain() == 0
    assert sorted(redis_server.ask("KEYS", "*")) == [f"pipeline:payments:order-{n}" for n in (0, 2, 4)]
    entry = decode_entry(redis_server.ask("GET", "pipeline:payments:order-4").encode().removeprefix(b"bytes:"))
    assert entry is not None
    assert json.loads(entry.value) == {"paid": 4}


async def test_a_worker_does_not_wait_for_its_cache(
    vhost: TestVhost, tmp_path: Path, redis_server: RedisServer
) -> None:
    # given a cache that takes connections and answers nothing
    app = await application(vhost, tmp_path, redis_server.url)
    redis_server.freeze()
    orders = 2000
    await publish(app, *range(orders))

    # when a worker processes, then all events are, none of them a second time, and it says that it goes without
    async with app.worker() as running:
        await app.until_count("payments", orders)
        await running.until_said("the cache is down, going without it")
        # and it ends in order
        assert await running.drain() == 0
        assert [line["duplicates"] + line["retried"] for line in running.said("ended")] == [0]
        assert redis_server.password not in json.dumps(running.log)


async def has_keys(server: RedisServer, count: int) -> bool:
    return len(server.ask("KEYS", "*")) >= count
