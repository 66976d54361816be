"""Killed in the middle of their work: a worker, the broker, both. Afterwards every event has ended, and none twice."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.broker.locate import programs
from pipeline.broker.node import Node
from tests.faults.shop import Shop, open_shop
from tests.support.application import RunningWorker
from tests.support.broker import PROJECT, TestVhost, wait_until_registered
from tests.support.topologies import until

ORDERS = 2000
QUEUES = [f"{name}{suffix}" for name in ("payments", "ledger") for suffix in ("", ".retry.200ms", ".dlq")]
# Nobody waits long for a broker that is known to be dead.
IMPATIENT = {"PIPELINE_PUBLISH_DEADLINE": "2", "PIPELINE_CONNECT_TIMEOUT": "2"}


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A broker to be killed: nobody else's."""
    with tempfile.TemporaryDirectory(prefix="pipeline-test-") as folder:
        node = Node(Path(folder), programs(PROJECT / ".pipeline", print))
        try:
            node.start()
            yield node
        finally:
            node.kill()
            node.stop()


async def paid(shop: Shop, count: int) -> None:
    """Wait until so many orders are paid."""
    await shop.app.until_count("payments", count)


async def finished(shop: Shop, running: RunningWorker) -> None:
    """Wait until every order has ended, drain the workers, and check the books."""

    async def ended() -> bool:
        return shop.all_ended()

    # What a process committed and did not publish before it was killed is found by another within ten seconds.
    await until(ended, "every order has ended", deadline=60)
    assert await running.drain() == 0
    shop.check_the_books()


async def test_a_worker_is_killed(vhost: TestVhost, tmp_path: Path) -> None:
    # Given two processes at work on some thousand orders
    shop = open_shop(vhost, tmp_path, ORDERS)
    await shop.app.apply()
    await shop.app.good("publish", "--file", shop.feed)
    async with shop.app.worker("--processes", "2") as running:
        # When first one, then the other is killed in the middle of a batch
        await paid(shop, 300)
        first, second = running.pids
        os.kill(first, signal.SIGKILL)
        await paid(shop, 800)
        os.kill(second, signal.SIGKILL)

        # Then the supervisor starts both again, and the books balance
        died = await running.until_said("a worker process died, starting it again", times=2)
        assert {line["how"] for line in died} == {"killed by SIGKILL"}
        await running.until_said("working", times=4)
        await finished(shop, running)


async def test_the_broker_is_killed(node: Node, tmp_path: Path) -> None:
    # Given orders that are being published and paid at the same time
    shop = await shop_on(node, tmp_path)
    async with shop.app.worker("--processes", "2", environ=IMPATIENT) as running:
        await running.until_said("working", times=2)
        publishing = await shop.app.start("publish", "--file", shop.feed, environ=IMPATIENT)
        await paid(shop, 200)

        # When the broker is killed and comes back
        await killed_and_started(node)
        await publishing.communicate()

        # Then publishing goes on where it broke off, the workers by themselves, and the books balance
        assert publishing.returncode in (0, 6)  # 0: everything was confirmed before the blow
        if publishing.returncode:
            await shop.app.good("publish", "--file", shop.feed, "--resume")
        await finished(shop, running)
        assert running.said("a worker process died, starting it again") == [], "".join(running.noise)


async def test_workers_and_broker_are_killed_at_once(node: Node, tmp_path: Path) -> None:
    # Given two processes at work
    shop = await shop_on(node, tmp_path)
    await shop.app.good("publish", "--file", shop.feed)
    async with shop.app.worker("--processes", "2", environ=IMPATIENT) as running:
        await paid(shop, 300)
        # When both and the broker are killed, and the broker comes back
        for pid in running.pids:
            os.kill(pid, signal.SIGKILL)
        await killed_and_started(node)

        # Then the supervisor goes on trying until there is a broker again, and the books balance
        await finished(shop, running)
        assert {line["how"] for line in running.said("a worker process died, starting it again")} <= {
            "killed by SIGKILL",
            "exit code 4",  # no broker to start with
        }


async def shop_on(node: Node, folder: Path) -> Shop:
    """A shop in the node's own virtual host, with empty queues that a crash won't make it forget."""
    address = await asyncio.to_thread(node.start)
    shop = open_shop(TestVhost("%2F", address.amqp_url, address.management_url), folder, ORDERS)
    await shop.app.apply()
    await asyncio.to_thread(wait_until_registered, node, "/", QUEUES)
    return shop


async def killed_and_started(node: Node) -> None:
    """SIGKILL, and a new start."""
    before = node.known_address()
    await asyncio.to_thread(node.kill)
    after = await asyncio.to_thread(node.start)
    assert after.amqp_url == before.amqp_url
