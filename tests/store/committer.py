"""A process that commits events to a store: `python -m tests.store.committer URL SEED FIRST LAST SIZE [KILL]`.

It commits the events FIRST to LAST in an order made from SEED, SIZE at a time, and prints a JSON line per batch once it
is committed. It takes its own life in the middle of the transaction that holds the event KILL.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys

from pipeline.store import Effects, Outgoing, Store
from tests.store.models import TABLES, Mortal, Payment


def event(number: int, kill: int) -> Effects:
    """An event with effects in every table."""
    return Effects(
        f"e{number}",
        "order.created",
        [Payment(order_id=number, customer="x"), Mortal(id=number, word="die" if number == kill else "live")],
        result=b"1",
        outgoing=[Outgoing("x", "k", f"m{number}", b"", b"")],
    )


async def main(url: str, seed: int, first: int, last: int, size: int, kill: int = -1) -> None:
    """Commit and say so."""
    numbers = list(range(first, last + 1))
    random.Random(seed).shuffle(numbers)
    store = await Store.open(url, "payments", TABLES)
    for start in range(0, len(numbers), size):
        report = await store.commit([event(number, kill) for number in numbers[start : start + size]])
        said = {"processed": report.processed, "duplicates": len(report.duplicates), "rejected": len(report.rejected)}
        print(json.dumps(said), flush=True)  # noqa: T201
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
