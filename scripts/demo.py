"""`make demo`: the main job, end to end, through the command line a user has.

10,000 orders in JSON Lines go to payments and inventory, whose events go back to orders. Some orders fail twice and
then pass, some never pass, some lines are malformed, some are there twice. At the end the books are checked: every
event is processed or a dead letter, counted from broker and databases.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

PIPELINE = str(Path(sys.executable).parent / "pipeline")
RED, GREEN, DIM, END = ("\033[31m", "\033[32m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "", "")


def order_line(number: int, run: str) -> str:
    """Line `number` of the feed: a CloudEvent, with deterministic trouble in it."""
    card, sku = "good", f"sku-{number % 97:02d}"
    if number % 500 == 250:
        return '{"specversion": "1.0", "type": "order.created", "data": {"order_id": ' + str(number)  # cut off
    if number % 100 == 1:
        card = "slow-bank"  # fails twice, then passes
    elif number % 200 == 2:
        card = "stolen"  # rejected at once
    elif number % 400 == 3:
        card = "empty"  # fails at every attempt
    if number % 100 == 4:
        sku = "recount"  # fails twice, then passes
    elif number % 250 == 5:
        sku = "discontinued"
    data = {
        "order_id": number,
        "customer": f"customer-{number % 1000}",
        "sku": sku,
        "quantity": number % 5 + 1,
        "amount": f"{number % 200 + 1}.50",
        "card": card,
    }
    event = {
        "specversion": "1.0",
        "id": f"{run}-{number:06d}",
        "source": f"/demo/{run}",
        "type": "order.created",
        "data": data,
    }
    return json.dumps(event)


def write_feed(path: Path, orders: int, run: str, first: int = 1) -> None:
    """The feed, order numbers from `first` on; every hundredth order comes a second time."""
    with path.open("w") as feed:
        for number in range(first, first + orders):
            line = order_line(number, run)
            feed.write(line + "\n")
            if number % 100 == 50:
                feed.write(line + "\n")


def step(words: str, *command: str, expected: tuple[int, ...] = (0,)) -> None:
    """Show and run one command; end the demo when it fails."""
    print(f"\n{GREEN}▸ {words}{END}\n{DIM}$ {' '.join(['pipeline', *command])}{END}", flush=True)
    code = subprocess.run([PIPELINE, *command], check=False).returncode
    if code not in expected:
        print(f"{RED}that ended with exit code {code}; the demo stops here{END}", file=sys.stderr)
        sys.exit(code or 1)


def main() -> None:
    """Run the demo. Exit code 0 only if the books balance."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--orders", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    began = time.monotonic()
    run = f"{time.time_ns() // 1_000_000:x}"
    state = Path(os.environ.get("PIPELINE_STATE_DIR", ".pipeline"))
    feed = state / "demo" / "orders.jsonl"
    feed.parent.mkdir(parents=True, exist_ok=True)
    write_feed(feed, arguments.orders, run)
    # A run of its own: order numbers begin at 1 each time, so its results go to databases of its own.
    os.environ["PIPELINE_DATABASE_URL"] = f"sqlite+aiosqlite:///{(state / 'demo' / run).absolute()}/{{subscription}}.db"

    step("make the databases' tables", "db", "upgrade")
    step("declare the topology", "topology", "apply")
    step("what it looks like", "topology", "show")
    step(
        f"publish {arguments.orders:,} orders; cut-off lines are refused by file and line",
        *("publish", "--file", str(feed)),
        expected=(0, 1),
    )
    step(
        "work until the queues are empty",
        *("worker", "start", "--processes", str(arguments.processes), "--until-empty", "--log-level", "error"),
    )
    step("check the books", "accounts", "--source", f"/demo/{run}", expected=(0, 1))
    step("the dead letters, by error", "dlq", "list")
    balance = subprocess.run(
        [PIPELINE, "accounts", "--source", f"/demo/{run}", "--json"], check=False, capture_output=True
    ).returncode
    seconds = time.monotonic() - began
    if balance:
        print(f"\n{RED}the books do not balance{END} ({seconds:.0f} s)")
        sys.exit(1)
    print(f"\n{GREEN}published = processed + dead-lettered, for every subscription{END} ({seconds:.0f} s)")


if __name__ == "__main__":
    main()
