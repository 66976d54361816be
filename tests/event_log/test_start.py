"""A new subscription that catches up from the log before it goes live, while publishing goes on."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import aio_pika

from pipeline.amqp.publisher import Publisher
from pipeline.event import Event
from pipeline.topology.load import load_topology
from tests.event_log.ledger import FILE, ids, ledger, publish, times
from tests.support.application import Application
from tests.support.broker import TestVhost
from tests.support.rabbit import rabbit
from tests.support.topologies import until

HISTORY = 6000
MORE = 4000
LEDGER = """\
  ledger:
    events: [order.created, order.paid]
    handler: ledger
    retry: {attempts: 2, delays: [100ms]}
"""
BEFORE = FILE.replace(LEDGER, "")
assert BEFORE != FILE


def starting(start: str) -> str:
    """The file with the new subscription in it."""
    return FILE.replace("    handler: ledger\n", f"    handler: ledger\n    start: {start}\n")


async def test_each_event_is_processed_once_though_publishing_goes_on_meanwhile(
    vhost: TestVhost, tmp_path: Path
) -> None:
    application = ledger(vhost, tmp_path, BEFORE)
    await application.apply()
    await publish(application, ids(HISTORY))
    application.write("topology.yaml", starting("first"))
    planned = await application.run("topology", "plan")
    assert planned.code == 2
    assert "catches up from first in events.log" in planned.out

    publishing = asyncio.create_task(publish_on(application, HISTORY, MORE))
    done = await application.good("topology", "apply")
    await publishing

    assert "catches up" in done.out
    async with application.worker("ledger") as worker:
        await application.until_count("ledger", HISTORY + MORE)

        async def empty() -> bool:
            return bool(application.queue("ledger")["messages"] == 0)

        await until(empty, "an empty queue", 60)
        assert await worker.drain() == 0
    assert times(application) == dict.fromkeys(ids(HISTORY + MORE), 1), "no gap, and nothing twice"
    # the mark is gone, and there is nothing left to do
    assert (await application.run("topology", "plan")).code == 0


async def publish_on(application: Application, first: int, count: int) -> None:
    """Publish a little at a time, for as long as a catching-up takes."""
    topology = load_topology(application.settings.topology).topology
    async with Publisher(topology, application.settings) as publisher:
        for start in range(first, first + count, 20):
            await publisher.publish_many([Event("order.created", {"amount": 1}, each) for each in ids(20, start)])
            await asyncio.sleep(0.03)


async def test_a_catching_up_that_is_killed_goes_on_with_the_next_apply(vhost: TestVhost, tmp_path: Path) -> None:
    application = ledger(vhost, tmp_path, BEFORE)
    await application.apply()
    await publish(application, ids(HISTORY))
    application.write("topology.yaml", starting("first"))

    for least in (1, 2000):
        process = await application.start("topology", "apply")
        await until_filled(application, least)
        process.kill()
        await process.wait()
        planned = await application.run("topology", "plan")
        assert "goes on from first" in planned.out, planned
    await application.good("topology", "apply")
    await publish(application, ids(10, HISTORY))

    found = Counter(each for each, _ in application.take_ids("ledger", 3 * HISTORY))
    assert set(found) == set(ids(HISTORY + 10))
    assert sum(found.values()) < 2 * HISTORY, "it did not begin anew"


async def until_filled(application: Application, least: int) -> None:
    async def filled() -> bool:
        try:
            async with rabbit(application.vhost) as broker:
                return bool(await broker.count("ledger") >= least)
        except aio_pika.exceptions.ChannelNotFoundEntity:
            return False

    await until(filled, f"{least} copies in the queue", 60)


async def test_a_start_by_time_or_offset_takes_what_is_younger(vhost: TestVhost, tmp_path: Path) -> None:
    application = ledger(vhost, tmp_path, BEFORE)
    await application.apply()
    await publish(application, ids(100))
    application.write("topology.yaml", starting('"40"'))

    await application.good("topology", "apply")

    assert [each for each, _ in application.take_ids("ledger", 1000)] == ids(60, 40)


async def test_a_subscription_that_is_live_does_not_catch_up(vhost: TestVhost, tmp_path: Path) -> None:
    application = ledger(vhost, tmp_path)
    await application.apply()
    await publish(application, ids(10))
    application.write("topology.yaml", starting("first"))

    assert (await application.run("topology", "plan")).code == 0
    assert len(application.take_ids("ledger", 100)) == 10
