"""How late delayed events are: 10,000 with random delays of 1 to 60 s, the broker killed and restarted in between.

    python -m scripts.delay_soak [--events 10000] [--longest 60] [--no-restart]

A private broker of its own, a real worker with its database. Exit code 0 only if each event was processed just once
and none before its time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from pipeline.amqp.publisher import Publisher
from pipeline.broker.locate import programs
from pipeline.broker.node import Node
from pipeline.event import Event
from pipeline.settings import load_settings

PIPELINE = str(Path(sys.executable).parent / "pipeline")
BURST = 500  # events published at once
SETTLING = 10.0  # seconds after the broker is back in which it catches up with what fell due meanwhile
PATIENCE = 120.0  # seconds after the last due time

TOPOLOGY = """\
version: 1
exchanges: {events: {}}
events: {reminder.due: {}}
subscriptions:
  reminders: {events: [reminder.due], handler: handlers}
delay: {max: 1h}
"""
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


async def publish(count: int, longest: float, dice: random.Random) -> dict[int, float]:
    """Publish so many events; when each is due."""
    due: dict[int, float] = {}
    settings = load_settings()
    began = time.monotonic()
    async with Publisher(settings.topology, settings) as publisher:

        async def one(number: int) -> None:
            after = dice.uniform(1, longest)
            due[number] = time.time() + after
            await publisher.publish(Event("reminder.due", {"number": number}, f"r{number}"), after=after)

        for start in range(0, count, BURST):
            await asyncio.gather(*[one(number) for number in range(start, min(count, start + BURST))])
    print(f"{count:,} published, {count / (time.monotonic() - began):,.0f}/s", flush=True)
    return due


def rows(database: Path) -> list[tuple[int, float]]:
    """(number, when it was processed) of what the worker has done."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT number, at FROM reminder").fetchall()
    except sqlite3.OperationalError:
        return []


def report(words: str, late: list[float]) -> None:
    """One line of figures."""
    late.sort()
    at = {f"p{part}": late[min(len(late) - 1, len(late) * part // 100)] for part in (50, 90, 99)}
    figures = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in at.items())
    print(f"{words} ({len(late):,} events): least {late[0]:.3f} s, {figures}, most {late[-1]:.3f} s")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--longest", type=float, default=60.0, help="seconds")
    parser.add_argument("--no-restart", action="store_true")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pipeline-delay-") as name:
        folder = Path(name)
        (folder / "topology.yaml").write_text(TOPOLOGY)
        (folder / "handlers.py").write_text(HANDLERS)
        node = Node(folder, programs(Path(".pipeline").absolute(), print))
        try:
            sys.exit(run(arguments, folder, node))
        finally:
            node.kill()
            node.stop()


def run(arguments: argparse.Namespace, folder: Path, node: Node) -> int:
    """Publish, kill, wait, compare."""
    address = node.start()
    os.environ |= {
        "PIPELINE_AMQP_URL": address.amqp_url,
        "PIPELINE_MANAGEMENT_URL": address.management_url,
        "PIPELINE_STATE_DIR": str(folder / "state"),
        "PIPELINE_TOPOLOGY": str(folder / "topology.yaml"),
        "PIPELINE_DATABASE_URL": f"sqlite+aiosqlite:///{folder}/data/{{subscription}}.db",
        "PIPELINE_CONNECT_TIMEOUT": "2",
    }
    subprocess.run([PIPELINE, "topology", "apply"], check=True, stdout=subprocess.DEVNULL)
    worker = subprocess.Popen([PIPELINE, "worker", "start", "--log-level", "error"], cwd=folder)
    try:
        due = asyncio.run(publish(arguments.events, arguments.longest, random.Random(arguments.seed)))
        killed = back = 0.0
        if not arguments.no_restart:
            time.sleep(arguments.longest / 3)
            killed = time.time()
            node.kill()
            node.start()
            back = time.time()
            print(f"broker killed, and back after {back - killed:.1f} s", flush=True)
        database = folder / "data" / "reminders.db"
        while len(rows(database)) < len(due) and time.time() < max(due.values()) + PATIENCE:
            time.sleep(0.5)
        time.sleep(1)  # for what might come twice
        worker.send_signal(signal.SIGTERM)
        worker.wait()
    finally:
        worker.kill()
    done = rows(database)
    times = Counter(number for number, _ in done)
    missing, twice = due.keys() - times.keys(), [number for number, n in times.items() if n > 1]
    early = [number for number, at in done if at < due[number]]
    report("all", [at - due[number] for number, at in done])
    if back:
        calm = [at - due[number] for number, at in done if not killed - 2 < due[number] < back + SETTLING]
        report("due while the broker was there", calm)
    print(f"missing {len(missing)}, twice {len(twice)}, early {len(early)}")
    return 1 if missing or twice or early else 0


if __name__ == "__main__":
    main()
