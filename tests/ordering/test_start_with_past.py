"""An ordered subscription that begins with what is in the log, while publishing goes on: each key's sequence is exact.

The publishers of before know nothing of the subscription, so that the history has no keys in its headers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pipeline.amqp.publisher import Publisher
from pipeline.event import Event
from pipeline.topology.load import load_text, load_topology
from tests.ordering.stock import Stock, open_stock
from tests.support.broker import TestVhost, manage
from tests.support.rabbit import rabbit
from tests.support.topologies import applied, planned, until

BEFORE = """\
version: 1
exchanges:
  events: {type: topic}
event_log: {exchange: events}
events:
  stock.moved: {exchange: events}
"""
AFTER = (
    BEFORE
    + """\
subscriptions:
  stock:
    events: [stock.*]
    handler: handlers
    order_by: data.sku
    partitions: PARTITIONS
    retry: {attempts: 3, delays: [50ms]}
    prefetch: 200
    start: first
"""
)
KEYS = [f"sku-{letter}" for letter in "abcdefgh"]
HISTORY = 600  # events of each key before there is a subscription
AT_ONCE = 5  # events of each key that are published together from then on


def trouble(number: int) -> str:
    """Some fail once, some for good."""
    return "always" if number % 250 == 17 else "once" if number % 100 == 3 else ""


async def with_history(vhost: TestVhost, folder: Path) -> Stock:
    """An application whose log has a history, and whose file has a new subscription that is not applied."""
    stock = open_stock(vhost, folder)
    stock.app.write("topology.yaml", BEFORE)
    await stock.app.apply()
    await stock.publish([(key, number, trouble(number)) for number in range(HISTORY) for key in KEYS])
    declare(stock, 4)
    return stock


def declare(stock: Stock, partitions: int) -> None:
    stock.app.write("topology.yaml", AFTER.replace("PARTITIONS", str(partitions)))


class Publishing:
    """Publishes on; `count` events of each key are confirmed."""

    def __init__(self, stock: Stock) -> None:
        self._stock = stock
        self._enough = asyncio.Event()
        self.count = HISTORY

    async def run(self) -> None:
        topology = load_text(AFTER.replace("PARTITIONS", "4")).topology
        async with Publisher(topology, self._stock.app.settings) as publisher:
            while not self._enough.is_set():
                numbers = range(self.count, self.count + AT_ONCE)
                data = [{"sku": key, "number": each, "fails": trouble(each)} for each in numbers for key in KEYS]
                await publisher.publish_many(
                    [Event("stock.moved", each, f"{each['sku']}-{each['number']}") for each in data], deadline=60
                )
                self.count += AT_ONCE
                await asyncio.sleep(0.1)

    def stop(self) -> None:
        self._enough.set()


@asynccontextmanager
async def publishing(stock: Stock) -> AsyncIterator[Publishing]:
    """Publish for as long as the block lasts."""
    found = Publishing(stock)
    task = asyncio.create_task(found.run())
    try:
        yield found
    finally:
        found.stop()
        await task


async def until_through(stock: Stock, count: int) -> None:
    """Wait until each key's events up to `count` have had their effects, or are dead."""
    wanted = len(KEYS) * sum(trouble(number) != "always" for number in range(count))

    async def through() -> bool:
        return stock.app.count("stock", "move") >= wanted

    await until(through, "every event has had its effects", 120)


def check(stock: Stock, count: int) -> None:
    """Nothing is missing, nothing is there twice, and nothing has overtaken."""
    effects = stock.effects()
    for key in KEYS:
        assert effects[key] == [number for number in range(count) if trouble(number) != "always"], key
    dead = {f"{key}-{number}" for key in KEYS for number in range(count) if trouble(number) == "always"}
    assert set(stock.dead()) == dead


async def test_order_holds_from_the_first_event_on_though_publishing_goes_on(vhost: TestVhost, tmp_path: Path) -> None:
    # Given a history, and events that go on coming
    stock = await with_history(vhost, tmp_path)
    async with publishing(stock) as published:
        # When somebody tries to work from before the subscription is applied until it can be worked on
        applying = asyncio.create_task(stock.app.good("topology", "apply"))
        refused = 0
        while True:
            async with stock.app.worker("--processes", "2") as running:
                beginning = asyncio.create_task(running.until_said("working", times=2))
                ending = asyncio.create_task(running.wait())
                await asyncio.wait([beginning, ending], return_when=asyncio.FIRST_COMPLETED)
                if ending.done():
                    beginning.cancel()
                    assert ending.result() == 3, "the topology is not there yet"
                    if applying.done():
                        applying.result()  # says why, if it failed
                    refused += 1
                    continue
                ending.cancel()
                await beginning
                names = [each["name"] for each in listed(stock, "queues")]
                assert "stock.catchup" not in names, "nobody works before the past is complete"
                await applying
                published.stop()

                # Then each key's sequence is exact
                await until_through(stock, published.count)
                assert await running.drain() == 0
                break
    assert refused
    check(stock, published.count)

    # And nothing is left to do; what held the past can be pruned once the broker's statistics know that it is empty
    async def emptied() -> bool:
        return not any(each.get("messages", 1) for each in past(stock))

    await until(emptied, "the partitions of the past are empty")
    topology = load_topology(stock.app.settings.topology).topology
    assert (await planned(stock.app.settings, topology)).exit_code == 0
    gone: set[str] = set()

    async def pruned() -> bool:
        done = await applied(stock.app.settings, topology, prune=True)
        gone.update(step.name for step in done.pruned)
        return not done.kept

    await until(pruned, "everything is pruned")
    assert gone == {f"stock.p04.{index}" for index in range(4)}


async def test_order_holds_though_apply_is_killed_and_the_partitions_change(vhost: TestVhost, tmp_path: Path) -> None:
    # Given a history, and events that go on coming
    stock = await with_history(vhost, tmp_path)

    def there(name: str) -> Callable[[], Awaitable[bool]]:
        """A queue, or something that is bound to an exchange."""

        async def seen() -> bool:
            names = [each["name"] for each in listed(stock, "queues")]
            return name in names or name in [each["destination"] for each in listed(stock, "bindings")]

        return seen

    async def copied() -> bool:
        async with rabbit(vhost) as broker:
            return bool(sum([await broker.count(f"stock.p04.{index}") for index in range(4)]))

    async with publishing(stock) as published:
        # When applying is killed before, while and after it copies what was
        for moment in (there("stock.p04.3"), there("stock.catchup"), copied, there("stock.partitions")):
            process = await stock.app.start("topology", "apply")
            try:
                await until(moment, "the moment to kill it")
            finally:
                process.kill()
                await process.communicate()
        async with stock.app.worker() as early:
            assert await early.wait() == 3
        assert "stock is catching up" in str(early.log), (early.log, early.noise)

        # And by then the file says another number of partitions, which has to wait
        declare(stock, 6)
        refused = await stock.app.run("topology", "apply")
        assert refused.code == 2
        assert "began to catch up by data.sku in stock.p04" in refused.err
        declare(stock, 4)
        await stock.app.good("topology", "apply")
        declare(stock, 6)
        await stock.app.good("topology", "apply")
        live = published.count

    # Then workers take the past, the partitions of before and those of today one after the other
    async with stock.app.worker("--processes", "2") as running:
        await until_through(stock, published.count)
        assert await running.drain() == 0
    assert live > HISTORY
    check(stock, published.count)


def past(stock: Stock) -> list[dict[str, Any]]:
    """The queues of the past."""
    return [each for each in listed(stock, "queues") if each["name"].startswith("stock.p04.")]


def listed(stock: Stock, kind: str) -> list[dict[str, Any]]:
    """All queues or bindings."""
    found = manage(stock.app.vhost.management_url, "GET", f"/api/{kind}/{stock.app.vhost.name}")
    assert isinstance(found, list)
    return found
