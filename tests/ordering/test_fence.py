"""Who was frozen, and wakes after another process has decided, can't commit what it has in hand: on both databases."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.application import Application
from tests.support.broker import TestVhost
from tests.support.postgres import Databases
from tests.support.topologies import until

TOPOLOGY = """\
version: 1
exchanges: {events: {type: topic}}
events: {stock.moved: {exchange: events}}
subscriptions:
  stock: {events: [stock.*], handler: handlers, order_by: data.sku, partitions: 1}
"""
# Who is first to handle the event stops in the middle of it; the second decides otherwise.
HANDLERS = """\
import os
import signal
from pathlib import Path
from sqlmodel import Field, SQLModel
from pipeline import Event, Reject, Worker

class Move(SQLModel, table=True):
    row: int | None = Field(default=None, primary_key=True)
    number: int

worker = Worker("stock", tables=[Move])

@worker.handle("stock.moved")
async def move(event: Event[dict]):
    if event.data["number"] == 1:
        if Path("frozen").exists():
            raise Reject("the second says no")
        Path("frozen").write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)
        Path("awake").write_text("")
    return Move(number=event.data["number"])
"""


@contextmanager
def database(kind: str, app: Application, databases: Callable[[], Databases]) -> Iterator[Callable[[str], list[Any]]]:
    """The application's database, and a look into it."""
    if kind == "sqlite":
        yield lambda sql: app.rows("stock", sql)
        return
    with databases().database() as made:
        app.environ["PIPELINE_DATABASE_URL"] = made.url
        yield made.session.run


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_who_wakes_after_a_take_over_commits_nothing(
    vhost: TestVhost, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    # Given two processes, one of which freezes in the middle of an event
    app = Application(vhost, tmp_path)
    app.write("topology.yaml", TOPOLOGY)
    app.write("handlers.py", HANDLERS)
    await app.apply()
    events = [
        {"specversion": "1.0", "id": str(n), "type": "stock.moved", "data": {"sku": "a", "number": n}} for n in range(3)
    ]
    for name, some in {"first": events[:1], "others": events[1:]}.items():
        app.write(f"{name}.jsonl", "".join(f"{json.dumps(event)}\n" for event in some))
    with database(kind, app, lambda: request.getfixturevalue("databases")) as look:
        async with app.worker("--processes", "2", environ={"PIPELINE_HEARTBEAT": "1"}) as running:
            await running.until_said("working", times=2)
            await app.good("publish", "--file", "first.jsonl")

            # (Who freezes while it commits keeps the database's lock, and that is another matter.)
            async def committed() -> bool:
                return look("SELECT number FROM move") == [(0,)]

            await until(committed, "the event before it is committed", deadline=60)
            await app.good("publish", "--file", "others.jsonl")

            # When the other has taken over, and decided that it is dead
            async def over() -> bool:
                return look("SELECT number FROM move ORDER BY row") == [(0,), (2,)]

            await until(over, "the second process has gone on", deadline=60)
            os.kill(int((tmp_path / "frozen").read_text()), signal.SIGCONT)

            async def awake() -> bool:
                return (tmp_path / "awake").exists()

            await until(awake, "the first one goes on")
            assert await running.drain() == 0

        # Then the first one's effects of it are nowhere
        assert look("SELECT number FROM move ORDER BY row") == [(0,), (2,)]
        assert look("SELECT event_id, state FROM pipeline_line") == [("1", "dead")]
        assert sorted(look("SELECT event_id FROM pipeline_inbox")) == [("0",), ("2",)]
    assert app.take_ids("stock.dlq", 10)[0][0] == "1"
