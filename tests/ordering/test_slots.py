"""Which partition a key's events go to: the one of its slot, whatever it is ordered by; after restarts, too."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pipeline.amqp.publisher import Publisher
from pipeline.broker.node import Node
from pipeline.event import Event
from pipeline.properties import Properties
from pipeline.topology.load import load_topology
from pipeline.topology.partitions import work_queues
from pipeline.topology.slots import slot_of
from tests.ordering.stock import open_stock
from tests.support.application import Application
from tests.support.broker import TestVhost, new_vhost, wait_until_registered
from tests.support.rabbit import rabbit
from tests.support.topologies import until

KEYS = [f"sku-{number}" for number in range(40)]
ORDERS = """\
version: 1
exchanges: {events: {type: topic}}
delay: {max: 1h}
events: {order.created: {exchange: events}, order.paid: {exchange: events}}
subscriptions:
  by-type: {events: [order.*], order_by: type, partitions: 3}
  by-subject: {events: [order.*], order_by: subject, partitions: 5, on_missing_key: default}
  by-customer: {routing_keys: ["order.#"], exchange: events, order_by: data.customer, partitions: 64}
  plain: {events: [order.*]}
"""


async def ids_in(vhost: TestVhost, queues: Iterable[str]) -> dict[str, list[str]]:
    """The ids of what lies in each queue, in order. By consuming: RabbitMQ lets nobody get from a partition."""
    found = {}
    async with rabbit(vhost) as seen:
        for name in queues:
            queue = await seen.channel.declare_queue(name, passive=True)
            left = queue.declaration_result.message_count or 0
            found[name] = ids = list[str]()
            if left:
                async with queue.iterator(no_ack=True) as messages:
                    async for message in messages:
                        ids.append(message.message_id or "")
                        if len(ids) == left:
                            break
    return found


async def test_the_key_decides_and_nothing_else(vhost: TestVhost, tmp_path: Path) -> None:
    # Given subscriptions that are ordered by different things, and one that is not
    app = Application(vhost, tmp_path)
    app.write("topology.yaml", ORDERS)
    await app.apply()
    topology = load_topology(app.settings.topology).topology

    # When events are published, one of them for later
    events = [
        Event(
            ("order.created", "order.paid")[n % 2], {"customer": n % 7}, f"e{n}", subject=f"s{n % 5}" if n % 3 else None
        )
        for n in range(60)
    ]
    async with Publisher(topology, app.settings) as publisher:
        await publisher.publish_many(events[:-1])
        await publisher.publish(events[-1], after=1)

    async def arrived() -> bool:
        return int(app.queue("plain").get("messages", 0)) == len(events)

    await until(arrived, "the one for later")

    # Then each is once in each subscription, in the partition of its key's slot
    keys: dict[str, Callable[[Event[Any]], str]] = {
        "by-type": lambda event: event.type,
        "by-subject": lambda event: event.subject or "",
        "by-customer": lambda event: str(event.data["customer"]),
    }
    for name, key_of in keys.items():
        queues = work_queues(topology.subscriptions[name])
        expected: dict[str, list[str]] = {queue: [] for queue in queues}
        for event in events:
            expected[queues[slot_of(key_of(event)) % len(queues)]].append(event.id)
        assert await ids_in(vhost, queues) == expected, name
    assert sorted(event_id for event_id, _ in app.take_ids("plain", 100)) == sorted(event.id for event in events)


async def test_a_message_that_names_no_slot_goes_to_the_first_partition(vhost: TestVhost, tmp_path: Path) -> None:
    # Given another program's messages, which know nothing of slots
    stock = open_stock(vhost, tmp_path, partitions=3)
    await stock.app.apply()
    bodies = [
        (Properties(message_id=f"m{n}", type="stock.moved"), b'{"sku": "a", "number": %d}' % n) for n in range(20)
    ]

    # When they are published
    await stock.app.put_raw("stock.moved", *bodies, exchange="events")

    # Then all of them are in the first partition, in order
    found = await ids_in(vhost, [f"stock.p3.{index}" for index in range(3)])
    assert found == {"stock.p3.0": [f"m{n}" for n in range(20)], "stock.p3.1": [], "stock.p3.2": []}


async def test_keys_stay_where_they_are_through_restarts_of_the_broker(private_node: Node, tmp_path: Path) -> None:
    with new_vhost(private_node.start()) as vhost:
        # Given events of many keys that wait in partitions
        stock = open_stock(vhost, tmp_path, partitions=8)
        await stock.app.apply()
        partitions = [f"stock.p8.{index}" for index in range(8)]
        await asyncio.to_thread(wait_until_registered, private_node, vhost.name, partitions)
        await stock.publish([(key, 0, "") for key in KEYS])

        # When the broker is restarted, by force and in order, and more come
        for number, end in enumerate((private_node.kill, private_node.stop), 1):
            await asyncio.to_thread(end)
            await asyncio.to_thread(private_node.start)
            await stock.publish([(key, number, "") for key in KEYS])

        # Then all of a key is in one partition, in order
        ids = await ids_in(vhost, partitions)
        found: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for partition in partitions:
            for event_id in ids[partition]:
                key, _, which = event_id.rpartition("-")
                found[key].append((partition, which))
        for key in KEYS:
            ((first, _), *_) = found[key]
            assert found[key] == [(first, "0"), (first, "1"), (first, "2")], key
