"""What a forced replay leaves behind: results, follow-up events, and order where there is one."""

from __future__ import annotations

from pathlib import Path

from pipeline.amqp.publisher import Publisher
from pipeline.event import Event
from pipeline.topology.load import load_topology
from tests.event_log.ledger import ids
from tests.support.application import Application
from tests.support.broker import TestVhost
from tests.support.topologies import until

COUNT = 60
SKUS = 5
FILE = """\
version: 1
exchanges:
  events: {type: topic}
event_log: {exchange: events, max_age: 1d}
events:
  order.created: {}
  order.counted: {}
subscriptions:
  ledger: {events: [order.created], handler: shelf}
  stock: {events: [order.created], handler: shelf, order_by: data.sku, partitions: 3}
  counted: {events: [order.counted]}
"""
HANDLERS = """\
from sqlmodel import Field, SQLModel

from pipeline import Context, Event, Upsert, Worker

worker = Worker("ledger")
stock = Worker("stock")
seen = {}


class Seen(SQLModel, table=True):
    place: int | None = Field(default=None, primary_key=True)
    id: str
    sku: str


@worker.handle("order.created")
async def count(event: Event[dict], context: Context) -> dict:
    seen[event.id] = seen.get(event.id, 0) + 1
    context.publish("order.counted", {"times": seen[event.id]})
    return {"times": seen[event.id]}


@stock.handle("order.created")
async def remember(event: Event[dict]) -> Seen:
    return Seen(id=event.id, sku=event.data["sku"])
"""


async def test_a_forced_replay_renews_results_and_follow_ups_and_keeps_the_order_of_keys(
    vhost: TestVhost, tmp_path: Path
) -> None:
    application = Application(vhost, tmp_path)
    application.write("topology.yaml", FILE)
    application.write("shelf.py", HANDLERS)
    await application.apply()
    topology = load_topology(application.settings.topology).topology
    async with Publisher(topology, application.settings) as publisher:
        orders = [Event("order.created", {"sku": f"s{int(each[1:]) % SKUS}"}, each) for each in ids(COUNT)]
        await publisher.publish_many(orders)
    async with application.worker("ledger", "stock") as worker:
        await application.until_count("ledger", COUNT)
        await application.until_count("stock", COUNT)

        for _ in range(2):  # a replay that is not forced changes nothing
            for name in ("ledger", "stock"):
                await application.good("events", "replay", "--to", name, "--json")
        for name in ("ledger", "stock"):
            done = await application.good("events", "replay", "--to", name, "--force", "--json")
            assert done.json()["copied"] == COUNT
            await application.until_count(name, 2 * COUNT)
        assert await worker.drain() == 0

    results = dict(application.rows("ledger", "SELECT event_id, value FROM pipeline_result"))
    assert results == dict.fromkeys(ids(COUNT), '{"times":2}'), "the event's own result, renewed"
    follow_ups = application.take_ids("counted", 10 * COUNT)
    assert len(follow_ups) == len({event_id for event_id, _ in follow_ups}) == 2 * COUNT
    rows = application.rows("stock", "SELECT id, sku FROM seen ORDER BY place")
    for number in range(SKUS):
        own = [event_id for event_id in ids(COUNT) if int(event_id[1:]) % SKUS == number]
        assert [event_id for event_id, sku in rows if sku == f"s{number}"] == own + own
    keys = application.rows("stock", "SELECT count(*) FROM pipeline_inbox WHERE event_id LIKE '%#replay-%'")
    assert keys == [(COUNT,)]


async def test_how_long_the_log_keeps_changes_in_place(vhost: TestVhost, tmp_path: Path) -> None:
    application = Application(vhost, tmp_path)
    application.write("topology.yaml", FILE)
    application.write("shelf.py", HANDLERS)
    await application.apply()
    application.write("topology.yaml", FILE.replace("1d", "2h"))

    planned = await application.run("topology", "plan")
    await application.good("topology", "apply")

    assert planned.code == 2
    assert "max-age 86400s → 7200s" in planned.out

    async def in_effect() -> bool:
        found = application.queue("events.log").get("effective_policy_definition", {})
        return bool(found.get("max-age") == "7200s")

    await until(in_effect, "the new policy on the stream")
