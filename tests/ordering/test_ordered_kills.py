"""Order by key with real processes: some events fail, workers are killed, and each key's sequence is exact."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

from tests.ordering.stock import open_stock
from tests.support.broker import TestVhost
from tests.support.topologies import until

KEYS = [f"sku-{letter}" for letter in "abcdefgh"]
EACH = 1000


def trouble(number: int) -> str:
    """Some fail once, some for good."""
    return "always" if number % 250 == 17 else "once" if number % 50 == 3 else ""


async def test_each_keys_sequence_is_exact_though_workers_are_killed(vhost: TestVhost, tmp_path: Path) -> None:
    # Given 8 keys with 1,000 events each, mixed, some of which fail once and some for good
    stock = open_stock(vhost, tmp_path)
    await stock.app.apply()
    dice = random.Random(5)
    left = {key: iter(range(EACH)) for key in KEYS}
    moves = []
    while left:
        key = dice.choice(list(left))
        number = next(left[key], None)
        if number is None:
            del left[key]
        else:
            moves.append((key, number, trouble(number)))
    alive = {key: [number for number in range(EACH) if trouble(number) != "always"] for key in KEYS}
    wanted = sum(map(len, alive.values()))

    # When three processes work on them, and one is killed now and then
    async with stock.app.worker("--processes", "3") as running:
        await running.until_said("working", times=3)
        publishing = asyncio.create_task(stock.publish(moves))
        for share in (0.1, 0.3, 0.5, 0.7):
            await stock.until_moved(int(wanted * share))
            os.kill(dice.choice(running.pids), signal.SIGKILL)
        await publishing

        async def ended() -> bool:
            return stock.app.count("stock", "move") >= wanted

        await until(ended, "every event has had its effects", deadline=90)
        assert await running.drain() == 0

    # Then nothing is missing, nothing is there twice, and nothing has overtaken
    effects = stock.effects()
    for key in KEYS:
        assert effects[key] == alive[key], f"{key} is out of order"
    assert set(stock.dead()) == {
        f"{key}-{number}" for key in KEYS for number in range(EACH) if trouble(number) == "always"
    }


async def test_an_event_that_kills_its_worker_ends_as_a_dead_letter(vhost: TestVhost, tmp_path: Path) -> None:
    # Given an event that kills whoever handles it, among others of its key and of another
    stock = open_stock(vhost, tmp_path, partitions=2)
    await stock.app.apply()
    await stock.publish(
        [(key, number, "kill" if (key, number) == ("a", 5) else "") for number in range(10) for key in "ab"]
    )

    # When it is worked on
    async with stock.app.worker() as running:

        async def ended() -> bool:
            return stock.app.count("stock", "move") >= 19

        await until(ended, "every other event has had its effects", deadline=90)
        assert len(running.said("a worker process died, starting it again")) >= 3
        assert await running.drain() == 0

    # Then it is a dead letter, and its key went on behind it
    assert stock.effects() == {"a": [0, 1, 2, 3, 4, 6, 7, 8, 9], "b": list(range(10))}
    assert stock.dead() == ["a-5"]
