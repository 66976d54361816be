"""A message that kills its worker is found alone: its neighbours are processed, it is a dead letter, work goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.application import Application
from tests.support.broker import TestVhost
from tests.support.rabbit import rabbit

EVENTS = 1000
KILLER = 612
MORE = 200  # that come when it is over
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
    prefetch: 1000
    concurrency: 1000
    delivery_limit: %(limit)d
"""
# None is settled before the killer strikes for the first time, when all of them are in hand, nor while `hold` is there.
HANDLERS = """\
import asyncio, os, signal
from pathlib import Path
from pipeline import Event, Worker

worker = Worker("payments")
struck = Path("struck")

@worker.handle("order.created")
async def pay(event: Event[int]) -> int:
    if event.data == %(killer)d:
        if not struck.exists():
            await asyncio.sleep(0.5)
            struck.touch()
        %(how)s
    while not struck.exists() or Path("hold").exists():
        await asyncio.sleep(0.05)
    return event.data
"""


@pytest.mark.parametrize(
    ("how", "processes", "limit", "told"),
    [
        ("os._exit(0)", 1, 3, "exit code 0"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 2, 4, "killed by SIGSEGV"),
    ],
)
async def test_one_message_in_a_thousand_kills_its_worker(
    vhost: TestVhost, tmp_path: Path, how: str, processes: int, limit: int, told: str
) -> None:
    # Given a thousand messages in the queue, one of which ends its process
    app = Application(vhost, tmp_path)
    app.write("topology.yaml", TOPOLOGY % {"limit": limit})
    app.write("handlers.py", HANDLERS % {"killer": KILLER, "how": how})
    app.write("orders.jsonl", "".join(f"{number}\n" for number in range(EVENTS)))
    await app.apply()
    await app.good("publish", "order.created", "--file", "orders.jsonl")

    async with rabbit(vhost) as broker, app.worker("--processes", str(processes)) as running:
        # When workers take them all in hand, then all others are processed
        await app.until_count("payments", EVENTS - 1)

        # And the killer alone is a dead letter, with the reason for it
        await broker.until_count("payments.dlq", 1)
        letters = (await app.good("dlq", "show", "payments", "--json")).json()
        assert [letter["reason"] for letter in letters] == ["delivery_limit"]
        assert app.take_ids("payments.dlq", 10)[0][1] == str(KILLER)
        died = running.said("a worker process died, starting it again")
        assert {line["how"] for line in died} == {told}

        # And the workers are back at full speed: what comes next is taken in hand at once, not one by one
        hold = app.write("hold", "")
        app.write("more.jsonl", "".join(f"{number}\n" for number in range(EVENTS, EVENTS + MORE)))
        await app.good("publish", "order.created", "--file", "more.jsonl")
        await broker.until_count("payments", 0)
        assert app.count("payments") == EVENTS - 1
        hold.unlink()
        await app.until_count("payments", EVENTS - 1 + MORE)
        assert await running.drain() == 0
    assert app.rows("payments", "SELECT count(DISTINCT value) FROM pipeline_result") == [(EVENTS - 1 + MORE,)]
