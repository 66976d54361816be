"""100,000 events: a new subscription catches up while publishing goes on; then a forced replay, killed three times.

    python -m scripts.replay_soak [--events 100000]

A private broker of its own, a real worker with its database, the real command line. Exit code 0 only if each event was
processed just once by the catching-up, and just once more by the replay.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from pipeline.amqp.publisher import Publisher
from pipeline.broker.locate import programs
from pipeline.broker.node import Node
from pipeline.event import Event
from pipeline.settings import load_settings

PIPELINE = [sys.executable, "-m", "pipeline"]
CALL = 500  # events published at once
KILLS = 3
PATIENCE = 300.0  # seconds for each part

TOPOLOGY = """\
version: 1
exchanges: {events: {}}
event_log: {exchange: events}
events: {order.created: {}}
subscriptions:
  neighbour: {events: [order.created]}
"""
LATE = "  ledger: {events: [order.created], handler: handlers, start: first}\n"
HANDLERS = """\
from sqlalchemy.dialects.sqlite import insert
from sqlmodel import Field, SQLModel
from pipeline import Event, Worker

worker = Worker("ledger")

class Times(SQLModel, table=True):
    number: int = Field(primary_key=True)
    times: int

@worker.handle("order.created")
async def count(event: Event[dict]):
    table = Times.__table__
    row = insert(table).values(number=event.data["number"], times=1)
    return row.on_conflict_do_update(index_elements=["number"], set_={"times": table.c.times + 1})
"""


async def publish(first: int, count: int, rate: float = 0.0) -> None:
    """Publish so many events, as fast as they go or at a rate."""
    settings = load_settings()
    async with Publisher(settings.topology, settings) as publisher:
        for at in range(first, first + count, CALL):
            numbers = range(at, min(at + CALL, first + count))
            await publisher.publish_many([Event("order.created", {"number": each}, f"e{each}") for each in numbers])
            if rate:
                await asyncio.sleep(CALL / rate)


def run(*arguments: str) -> str:
    """A command that must end well."""
    done = subprocess.run([*PIPELINE, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"pipeline {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def counted(folder: Path) -> dict[int, int]:
    """How many events were processed how often."""
    try:
        with closing(sqlite3.connect(f"file:{folder}/data/ledger.db?mode=ro", uri=True)) as database:
            return dict(database.execute("SELECT times, count(*) FROM times GROUP BY times").fetchall())
    except sqlite3.OperationalError:  # not there yet
        return {}


def until(folder: Path, times: int, count: int) -> bool:
    """Wait until so many events were processed so often; whether that is all there is to say."""
    deadline = time.monotonic() + PATIENCE
    while counted(folder).get(times, 0) < count and time.monotonic() < deadline:
        time.sleep(0.5)
    time.sleep(3)  # what is twice may still be on its way
    return counted(folder) == {times: count}


def copied(folder: Path) -> int:
    """Copies the running replay has noted."""
    for path in (folder / "replays").glob("*.json"):
        return int(json.loads(path.read_text())["copied"])
    return 0


def killed_replays(folder: Path, count: int, command: list[str]) -> None:
    """Start the replay, and kill it on its way, so many times."""
    for number in range(1, KILLS + 1):
        process = subprocess.Popen([*PIPELINE, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while copied(folder) < number * count // (KILLS + 2) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        process.wait()
        print(f"replay killed behind {copied(folder):,} copies", flush=True)


def main() -> int:
    """Run it, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=100_000)
    count = parser.parse_args().events
    folder = Path(tempfile.mkdtemp(prefix="replay-soak-"))
    node = Node(folder / "broker", programs(Path(".pipeline"), print))
    worker: subprocess.Popen[bytes] | None = None
    try:
        address = node.start()
        os.environ |= {
            "PIPELINE_AMQP_URL": address.amqp_url,
            "PIPELINE_MANAGEMENT_URL": address.management_url,
            "PIPELINE_STATE_DIR": str(folder),
            "PIPELINE_DATABASE_URL": f"sqlite+aiosqlite:///{folder}/data/{{subscription}}.db",
            "PIPELINE_TOPOLOGY": str(folder / "topology.yaml"),
            "PYTHONPATH": f"{folder}:{Path.cwd()}",
        }
        (folder / "handlers.py").write_text(HANDLERS)
        (folder / "topology.yaml").write_text(TOPOLOGY)
        run("topology", "apply")
        history = count * 6 // 10
        asyncio.run(publish(0, history))
        (folder / "topology.yaml").write_text(TOPOLOGY + LATE)
        began = time.monotonic()
        apply = subprocess.Popen([*PIPELINE, "topology", "apply"], stdout=subprocess.DEVNULL)
        asyncio.run(publish(history, count - history, rate=4000))
        if apply.wait():
            return 1
        print(f"caught up, live after {time.monotonic() - began:.1f} s (publishing included)", flush=True)
        worker = subprocess.Popen([*PIPELINE, "worker", "start", "ledger", "--log-level", "error"])
        once = until(folder, 1, count)
        print(
            f"after the catching-up, events by times processed: {counted(folder)} {'ok' if once else 'WRONG'}",
            flush=True,
        )
        command = ["events", "replay", "--to", "ledger", "--force", "--rate", "20000", "--json"]
        killed_replays(folder, count, command)
        report = json.loads(run(*command))
        print(f"replay {report['replay']}: {report['copied']:,} copied, {report['before']:,} before the last start")
        twice = until(folder, 2, count)
        print(
            f"after the replay, events by times processed: {counted(folder)} {'ok' if twice else 'WRONG'}", flush=True
        )
        return 0 if once and twice else 1
    finally:
        if worker is not None:
            worker.send_signal(signal.SIGTERM)
            worker.wait(60)
        node.kill()
        node.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
