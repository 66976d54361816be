"""`make soak`: the main job for as long as you like, while workers and the broker are killed; then the books.

A private broker of its own; every few seconds a worker process is killed (SIGKILL), every minute the broker. Publishing
that breaks off goes on with `--resume`. Exit code 0 only if every event is processed or a dead letter, once.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from pipeline.broker.locate import programs
from pipeline.broker.node import Node
from scripts.demo import write_feed

PIPELINE = str(Path(sys.executable).parent / "pipeline")


def run(*command: str, expected: tuple[int, ...] = (0,)) -> int:
    """Run a command of ours; a code that was not expected ends the soak."""
    code = subprocess.run([PIPELINE, *command], check=False).returncode
    if code not in expected:
        sys.exit(f"`pipeline {' '.join(command)}` ended with exit code {code}")
    return code


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def publish(feed: Path) -> None:
    """Publish a file through any number of broken connections."""
    code = run("publish", "--file", str(feed), "--json", expected=(0, 1, 4, 6))
    while code in (4, 6):
        time.sleep(1)
        resumable = code == 6 or any((feed.parent / "state" / "publish").glob("*.json"))
        code = run(
            "publish", "--file", str(feed), "--json", *(["--resume"] if resumable else []), expected=(0, 1, 4, 6)
        )


def restart_broker(node: Node) -> None:
    """Kill the node and start it again."""
    node.kill()
    node.start()


def main() -> None:
    """Run the soak."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--orders", type=int, default=5000, help="orders a round")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    dice = random.Random(arguments.seed)
    base = Path(".pipeline/soak").absolute()
    folder = base / f"{arguments.seed}"
    folder.mkdir(parents=True)
    os.environ |= {
        "PIPELINE_STATE_DIR": str(folder / "state"),
        "PIPELINE_DATABASE_URL": f"sqlite+aiosqlite:///{folder}/data/{{subscription}}.db",
    }
    node = Node(base / "broker-state", programs(base.parent, print))
    address = node.start()
    os.environ |= {"PIPELINE_AMQP_URL": address.amqp_url, "PIPELINE_MANAGEMENT_URL": address.management_url}
    print(f"seed {arguments.seed}, {arguments.minutes:g} minutes", flush=True)
    run("topology", "apply")
    worker = subprocess.Popen([PIPELINE, "worker", "start", "--processes", "2", "--log-level", "error"])
    rounds = kills = restarts = 0
    try:
        ends = time.monotonic() + arguments.minutes * 60
        broker_dies = time.monotonic() + 60
        while time.monotonic() < ends:
            feed = folder / f"orders-{rounds}.jsonl"
            write_feed(feed, arguments.orders, f"soak-{arguments.seed}-{rounds}", first=rounds * arguments.orders + 1)
            publish(feed)
            rounds += 1
            if victims := children(worker.pid):
                os.kill(dice.choice(victims), signal.SIGKILL)
                kills += 1
            if time.monotonic() > broker_dies:
                restart_broker(node)
                restarts += 1
                broker_dies = time.monotonic() + 60
            time.sleep(dice.uniform(1, 5))
            print(f"{rounds} rounds, {kills} workers and {restarts} brokers killed", flush=True)
        worker.send_signal(signal.SIGTERM)
        worker.wait()
        run("worker", "start", "--processes", "2", "--log-level", "error", "--until-empty")
        code = run("accounts", expected=(0, 1))
    finally:
        worker.kill()
        node.stop()
    print(f"{rounds * arguments.orders:,} orders, {kills} workers and {restarts} brokers killed: ", end="")
    print("the books do not balance" if code else "the books balance")
    sys.exit(code)


if __name__ == "__main__":
    main()
