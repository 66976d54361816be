"""Another number of partitions, while events come: drained, re-hashed, nothing lost and nothing out of order."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pipeline.topology.load import load_topology
from pipeline.topology.model import Topology
from tests.ordering.stock import open_stock
from tests.support.broker import TestVhost
from tests.support.topologies import applied, planned, short, until

KEYS = [f"sku-{letter}" for letter in "abcdef"]
EACH = 500


async def test_another_number_of_partitions_under_load(vhost: TestVhost, tmp_path: Path) -> None:
    # Given workers on 4 partitions, with a backlog, and events that go on coming
    stock = open_stock(vhost, tmp_path, partitions=4)
    await stock.app.apply()
    moves = [(key, number, "once" if number % 100 == 7 else "") for number in range(EACH) for key in KEYS]
    third = len(moves) // 3
    await stock.publish(moves[:third])
    async with stock.app.worker("--processes", "2") as before:
        await stock.until_moved(100)
        publishing = asyncio.create_task(stock.publish(moves[third:]))

        # When the file says 6, and is planned and applied
        stock.topology(partitions=6)
        plan = await planned(stock.app.settings, topology_of_file(stock.app.folder))
        assert ("change", "binding", "stock.partitions → stock.p4") in short(plan)
        assert ("create", "queue", "stock.p6.5") in short(plan)
        await stock.app.apply()

        # And workers that know the new file join those that don't, which end later
        async with stock.app.worker("--processes", "2") as after:
            await after.until_said("working", times=2)
            await publishing
            assert await before.drain() == 0
            await stock.until_moved(len(moves))
            await after.until_said("the partitions of before are empty", times=2)
            assert await after.drain() == 0

    # Then every key's sequence is exact
    effects = stock.effects()
    for key in KEYS:
        assert effects[key] == list(range(EACH)), f"{key} is out of order"
    assert stock.dead() == []

    # And the partitions of before can be pruned (once RabbitMQ's statistics have seen that they are empty)
    topology = topology_of_file(stock.app.folder)
    gone: set[str] = set()

    async def pruned() -> bool:
        done = await applied(stock.app.settings, topology, prune=True)
        gone.update(step.name for step in done.pruned)
        return not done.kept

    await until(pruned, "everything is pruned")
    assert gone == {"stock.p4", "stock.p4.keyless"} | {f"stock.p4.{n}" for n in range(4)}
    assert short(await planned(stock.app.settings, topology)) == []


async def test_what_the_partitions_of_before_hold_comes_first(vhost: TestVhost, tmp_path: Path) -> None:
    # Given events in 3 partitions that nobody has worked on, and newer ones in 5
    stock = open_stock(vhost, tmp_path, partitions=3)
    await stock.app.apply()
    await stock.publish([(key, number, "") for number in range(100) for key in KEYS])
    stock.topology(partitions=5)
    await stock.app.apply()
    await stock.publish([(key, number, "") for number in range(100, 200) for key in KEYS])

    # When workers start that know only the new file
    async with stock.app.worker("--processes", "2") as running:
        await stock.until_moved(200 * len(KEYS))
        assert await running.drain() == 0

    # Then nothing of the new ones came before the old ones of its key
    effects = stock.effects()
    for key in KEYS:
        assert effects[key] == list(range(200)), f"{key} is out of order"


async def test_going_back_is_refused_while_it_would_mix_old_and_new(vhost: TestVhost, tmp_path: Path) -> None:
    # Given events in 3 partitions, and then a switch to 5
    stock = open_stock(vhost, tmp_path, partitions=3)
    await stock.app.apply()
    await stock.publish([("a", 1, "")])
    stock.topology(partitions=5)
    await stock.app.apply()

    # When the 3 are to be switched on again, though they hold what is older than all in the 5
    stock.topology(partitions=3)
    refused = await stock.app.run("topology", "apply")

    # Then that is refused, with what to do
    assert refused.code == 2
    assert "still holds 1 message of an earlier time" in refused.err


async def test_a_second_change_is_refused_before_the_first_has_come_through(vhost: TestVhost, tmp_path: Path) -> None:
    # Given events in 3 partitions and newer ones in 5
    stock = open_stock(vhost, tmp_path, partitions=3)
    await stock.app.apply()
    await stock.publish([("a", 1, "")])
    stock.topology(partitions=5)
    await stock.app.apply()
    await stock.publish([("a", 2, "")])

    # When 7 are to come, of whose workers nobody could tell which of the others are older
    stock.topology(partitions=7)
    refused = await stock.app.run("topology", "apply")

    # Then that is refused, and workers go on as before
    assert refused.code == 2
    assert "stock.p3." in refused.err
    assert "still holds 1 message of an earlier time" in refused.err
    stock.topology(partitions=5)
    async with stock.app.worker("--until-empty") as running:
        assert await running.wait() == 0
    assert stock.effects() == {"a": [1, 2]}


def topology_of_file(folder: Path) -> Topology:
    """The topology as the file says it now."""
    return load_topology(folder / "topology.yaml").topology
