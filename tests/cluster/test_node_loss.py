"""A real cluster of three nodes that are killed one after another, while events are published and processed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from pipeline.amqp.publisher import Publisher
from pipeline.errors import PublishError
from tests.cluster.market import SKUS, Market, open_market
from tests.support.application import RunningWorker
from tests.support.cluster import SIZE, Cluster


async def test_every_queue_and_the_log_have_a_copy_on_each_node_and_leaders_are_spread(
    cluster: Cluster, tmp_path: Path
) -> None:
    # Given a cluster
    await asyncio.to_thread(cluster.start)
    market = open_market(cluster, tmp_path)

    # When the topology is applied
    await market.apply()
    await market.whole()

    # Then each queue has a member on every node, and not all leaders are on one
    queues = market.queues()
    assert {each["type"] for each in queues} == {"quorum", "stream"}
    assert {len(set(each["members"])) for each in queues} == {SIZE}
    assert len({each["leader"] for each in queues if each["type"] == "quorum"}) > 1
    # and the broker is as the files say
    assert "nothing to do" in (await market.app.good("topology", "plan")).out


async def test_nodes_are_killed_one_after_another_and_every_confirmed_event_is_processed_once(
    cluster: Cluster, tmp_path: Path
) -> None:
    # Given events that are published, processed, kept in order and logged
    await asyncio.to_thread(cluster.start)
    market = open_market(cluster, tmp_path)
    await market.apply()
    async with market.app.worker("--processes", "2") as running:
        async with market.publishing():
            await running.until_said("working", times=2)
            await market.grown()

            # When the node is killed that leads the payments, then the others go on without it
            await lose(market, "payments")
            # and a worker can be started that has to find out who is left
            assert "nothing to do" in (await market.app.good("topology", "plan")).out

            # When it is back and the node is killed that leads the log, then the same
            await asyncio.to_thread(cluster.start)
            await market.whole()
            await lose(market, "events.log")

            # When a second one is lost, then nothing is confirmed, and whoever publishes hears of it
            await asyncio.to_thread(cluster.kill, cluster.alive[0])
            await refused(market)
            rounds = market.rounds
            await refused(market)
            assert market.rounds == rounds

            # When one of the two is back, then it goes on
            at = time.time()
            lost = min(set(range(SIZE)) - set(cluster.alive))
            await asyncio.to_thread(cluster.start, [lost])
            await market.grown()
            report("one of two is back (from its start)", market, at)

        # Then the books balance once all are back, and no process has died over it. Before, retries may wait: docs/
        # decisions/0017-cluster.md
        await asyncio.to_thread(cluster.start)
        await market.check_the_books()
        assert running.said("a worker process died, starting it again") == [], "".join(running.noise)
        await drained(running)


async def lose(market: Market, queue: str) -> None:
    """Kill the node that leads the queue, and wait until events flow again."""
    victim = await market.leader(queue)
    at = time.time()
    await asyncio.to_thread(market.cluster.kill, victim)
    await market.grown()
    report(f"the leader of {queue} is killed", market, at)


async def refused(market: Market) -> None:
    """Publish one event of the round that is under way: it is not confirmed."""
    async with Publisher(market.app.settings.topology, market.app.settings) as publisher:
        data = {"sku": SKUS - 1, "number": market.rounds}
        with pytest.raises(PublishError, match=r"no confirm within 2 s|not available|not confirmed"):
            await publisher.publish("order.created", data, id=f"{SKUS - 1}-{market.rounds}", deadline=2)


async def drained(running: RunningWorker) -> None:
    """SIGTERM ends the workers well, with the cluster as it is."""
    assert await running.drain() == 0


def report(what: str, market: Market, since: float) -> None:
    """Figures, which pytest shows with -s."""
    confirms = market.silence_of_confirms(since)
    payments, moves = market.silence("payment", since), market.silence("move", since)
    print(  # noqa: T201
        f"{what}: {confirms:.2f} s without confirms, {payments:.2f} s without payments, {moves:.2f} s without moves"
    )
