"""`python -m scripts.order_soak`: many events of few keys, workers killed, some events failing; then every sequence.

A private broker of its own, 4 processes, one of which is killed (SIGKILL) every few seconds. Exit code 0 only if each
key's effects are exactly its events, in order, without those that had to become dead letters.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from pipeline.broker.locate import programs
from pipeline.broker.node import Node
from scripts.soak import PIPELINE, children, run

TOPOLOGY = """\
version: 1
exchanges: {events: {type: topic}}
events: {stock.moved: {exchange: events}}
subscriptions:
  stock:
    events: [stock.moved]
    handler: order_soak_handlers
    order_by: data.sku
    partitions: 8
    retry: {attempts: 3, delays: [50ms]}
"""
HANDLERS = """\
from sqlmodel import Field, SQLModel
from pipeline import Context, Event, Reject, Retry, Worker

class Move(SQLModel, table=True):
    row: int | None = Field(default=None, primary_key=True)
    sku: str
    number: int

worker = Worker("stock", tables=[Move])

@worker.handle("stock.moved")
async def move(event: Event[dict], context: Context):
    number = event.data["number"]
    if number % 1000 == 17:
        raise Reject("never")
    if number % 100 == 3 and context.attempt == 1:
        raise Retry("not now")
    return Move(sku=event.data["sku"], number=number)
"""
DEAD = 17  # of a thousand numbers; see the handler
KILL_EVERY = (2.0, 5.0)  # seconds


def write(folder: Path, keys: int, each: int) -> None:
    """The application's files, and its events: the keys mixed, each in its order."""
    (folder / "topology.yaml").write_text(TOPOLOGY)
    (folder / "order_soak_handlers.py").write_text(HANDLERS)
    with (folder / "moves.jsonl").open("w") as feed:
        for number in range(each):
            for key in range(keys):
                data = {"sku": f"sku-{key}", "number": number}
                event = {"specversion": "1.0", "id": f"{key}-{number}", "type": "stock.moved", "data": data}
                feed.write(json.dumps(event) + "\n")


def moves(folder: Path) -> list[tuple[str, int]]:
    """(key, number) of all effects, in their order."""
    path = folder / "data" / "stock.db"
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT sku, number FROM move ORDER BY row").fetchall()
    except sqlite3.OperationalError:
        return []


def count(folder: Path) -> int:
    """How many effects there are."""
    path = folder / "data" / "stock.db"
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM move").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def out_of_order(folder: Path, keys: int, each: int) -> list[str]:
    """The keys whose sequence is not what it must be."""
    found: dict[str, list[int]] = {}
    for sku, number in moves(folder):
        found.setdefault(sku, []).append(number)
    wanted = [number for number in range(each) if number % 1000 != DEAD]
    return [f"sku-{key}" for key in range(keys) if found.get(f"sku-{key}") != wanted]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--keys", type=int, default=8)
    parser.add_argument("--each", type=int, default=100_000, help="events a key")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    dice = random.Random(arguments.seed)
    base = Path(".pipeline/order-soak").absolute()
    folder = base / f"{arguments.seed}"
    folder.mkdir(parents=True)
    write(folder, arguments.keys, arguments.each)
    os.environ |= {
        "PIPELINE_STATE_DIR": str(folder / "state"),
        "PIPELINE_TOPOLOGY": str(folder / "topology.yaml"),
        "PIPELINE_DATABASE_URL": f"sqlite+aiosqlite:///{folder}/data/{{subscription}}.db",
        "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    node = Node(base / f"broker-{arguments.seed}", programs(base.parent, print))
    address = node.start()
    os.environ |= {"PIPELINE_AMQP_URL": address.amqp_url, "PIPELINE_MANAGEMENT_URL": address.management_url}
    run("topology", "apply")
    processes = str(arguments.processes)
    worker = subprocess.Popen([PIPELINE, "worker", "start", "--processes", processes, "--log-level", "error"])
    publishing = subprocess.Popen([PIPELINE, "publish", "--file", str(folder / "moves.jsonl"), "--json"])
    dead = len(range(DEAD, arguments.each, 1000))
    wanted = arguments.keys * (arguments.each - dead)
    kills = done = 0
    began = time.monotonic()
    try:
        while done < wanted:
            time.sleep(dice.uniform(*KILL_EVERY))
            done = count(folder)
            print(f"{done:,} of {wanted:,}, {kills} workers killed", flush=True)
            if done < wanted and (victims := children(worker.pid)):
                os.kill(dice.choice(victims), signal.SIGKILL)
                kills += 1
        seconds = time.monotonic() - began
        publishing.wait()
        worker.send_signal(signal.SIGTERM)
        worker.wait()
        wrong = out_of_order(folder, arguments.keys, arguments.each)
    finally:
        publishing.kill()
        worker.kill()
        node.kill()
        node.stop()
    print(
        f"{arguments.keys} keys with {arguments.each:,} events each, {processes} processes, {kills} killed,"
        f" {arguments.keys * dead:,} dead letters, {seconds:.0f} s, {wanted / seconds:,.0f} events/s: "
        + (f"out of order: {', '.join(wrong)}" if wrong else "every sequence is exact")
    )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
