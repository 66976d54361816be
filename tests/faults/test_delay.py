"""Hundreds of delayed events while the broker is killed: none early, each processed once."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.amqp.publisher import Publisher
from pipeline.broker.locate import programs
from pipeline.broker.node import Node
from pipeline.event import Event
from pipeline.topology.load import load_topology
from tests.support.application import Application
from tests.support.broker import PROJECT, new_vhost, wait_until_registered
from tests.support.topologies import until

EVENTS = 500
TOPOLOGY = """\
version: 1
exchanges: {events: {}}
events: {reminder.due: {}}
subscriptions:
  reminders: {events: [reminder.due], handler: handlers}
delay: {max: 1h}
"""
# Rows without a key of their own: one that is written twice is there twice.
HANDLERS = """\
import time
from sqlmodel import Field, SQLModel
from pipeline import Event, Worker

worker = Worker("reminders")

class Reminder(SQLModel, table=True):
    row: int | None = Field(default=None, primary_key=True)
    number: int
    at: float

@worker.handle("reminder.due")
async def remind(event: Event[dict]):
    return Reminder(number=event.data["number"], at=time.time())
"""


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


async def test_the_broker_is_killed_while_events_wait(
    node: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with new_vhost(node.start()) as vhost:
        # Given 500 events with random delays, and a worker
        app = Application(vhost, tmp_path)
        app.write("topology.yaml", TOPOLOGY)
        app.write("handlers.py", HANDLERS)
        await app.apply()
        topology = load_topology(tmp_path / "topology.yaml").topology
        wait_until_registered(node, vhost.name, ["reminders", *[f"pipeline.delay.{2**level}s" for level in range(4)]])
        due: dict[int, float] = {}
        async with Publisher(topology, app.settings) as publisher:

            async def publish(number: int) -> None:
                after = random.uniform(1, 8)
                due[number] = time.time() + after
                await publisher.publish(Event("reminder.due", {"number": number}, f"r{number}"), after=after)

            await asyncio.gather(*[publish(number) for number in range(EVENTS)])
        async with app.worker(environ={"PIPELINE_CONNECT_TIMEOUT": "2"}) as running:
            await app.until_count("reminders", 50)

            # When the broker is killed while most of them wait, and comes back
            killed = time.time()
            await asyncio.to_thread(node.kill)
            await asyncio.to_thread(node.start)
            away = time.time() - killed

            async def all_done() -> bool:
                return app.count("reminders") >= EVENTS

            await until(all_done, "every event processed", deadline=60)
            assert await running.drain() == 0

        # Then each was processed, once, and none before its time
        rows = [(number, at) for number, at in app.rows("reminders", "SELECT number, at FROM reminder")]
        assert sorted(number for number, _ in rows) == list(range(EVENTS))
        assert [number for number, at in rows if at < due[number]] == []

        # and how late they were is said, not asserted: machines are busy
        late = sorted(at - due[number] for number, at in rows)
        said = {name: round(late[int(EVENTS * part)], 3) for name, part in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))}
        with capsys.disabled():
            print(f"\nlateness of {EVENTS} delayed events, the broker away for {away:.1f} s: {said} s")  # noqa: T201
