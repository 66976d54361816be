"""What a committed event costs, SQLite against PostgreSQL: `python -m benchmarks.databases [EVENTS]`. Out: a table.

Look-up and commit as a worker does them, one after the other, without broker and handlers: inbox and one row an event.
Both keep what they have committed when the power goes. PostgreSQL runs on this machine, and its own work is in the
time, not in the CPU.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import uvloop
from sqlalchemy import update
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, col

from pipeline.event import new_id
from pipeline.store import Effects, Outgoing, Store, Upsert
from tests.support.postgres import STATE, Server
from tests.support.postgres_programs import find

EVENTS = 20_000
SIZES = (500, 40, 1)  # events a batch
FEWEST = 300  # batches, so that few events a batch are measured no longer than many
ROUNDS = 3  # of each, in turns: the median counts


class Base(SQLModel, registry=registry()):
    """Keeps this table from being made elsewhere."""


class Payment(Base, table=True):
    """A row as the sample application has it."""

    order_id: int = Field(primary_key=True)
    customer: str
    amount: float = 0.0
    note: str | None = None


NUMBERS = count()
Make: TypeAlias = Callable[[], Effects]


def row() -> Payment:
    """A new row, made the quick way: its making is not what is measured."""
    return Payment.model_construct(order_id=next(NUMBERS), customer="customer", amount=1.5, note=None)


def _changed() -> Any:
    payment = update(Payment).where(col(Payment.order_id) == next(NUMBERS) % 1000)
    return payment.values(amount=Payment.amount + 1)


KINDS: dict[str, Make] = {
    "a row": lambda: Effects(new_id(), "order.created", [row()]),
    "an upsert": lambda: Effects(new_id(), "order.created", [Upsert(row())]),
    "a row, a result, a follow-up": lambda: Effects(
        new_id(), "order.created", [row()], b'{"paid": true}', [Outgoing("events", "paid", new_id(), b"x" * 250, b"p")]
    ),
    "a statement": lambda: Effects(new_id(), "order.created", [_changed()]),
}


async def measure(url: str, make: Make, events: int, size: int) -> tuple[float, float]:
    """µs of time and of this process's CPU that an event takes, at so many a batch."""
    store = await Store.open(url, "payments", [Payment])
    batches = min(events // size, max(FEWEST, EVENTS // SIZES[0]))
    taken = cpu = 0.0
    for _ in range(batches):
        batch = [make() for _ in range(size)]
        ids = [effects.event_id for effects in batch]
        began, cpu_began = time.perf_counter(), time.process_time()
        await store.seen(ids)
        report = await store.commit(batch)
        taken += time.perf_counter() - began
        cpu += time.process_time() - cpu_began
        assert len(report.processed) == size, report.rejected
        await store.forget_outgoing([out.key for effects in batch for out in effects.outgoing])
    await store.close()
    return taken / batches / size * 1e6, cpu / batches / size * 1e6


@contextmanager
def places() -> Iterator[dict[str, str]]:
    """URLs by name, of databases that are gone afterwards."""
    server = Server(find(STATE), durable=True)
    try:
        server.start()
        with tempfile.TemporaryDirectory() as folder:
            yield {"SQLite": f"sqlite+aiosqlite:///{Path(folder)}/{{subscription}}.db", "PostgreSQL": server.url()}
    finally:
        server.remove()


async def main(events: int) -> None:
    """Measure and print."""
    print(f"{'an event writes':30}{'a batch':>8}  {'µs an event (µs of CPU)':>24}")
    with places() as urls:
        for kind, make in KINDS.items():
            for size in SIZES:
                taken: dict[str, list[tuple[float, float]]] = {name: [] for name in urls}
                for _ in range(ROUNDS):
                    for name, url in urls.items():
                        taken[name].append(await measure(url, make, events, size))
                told = (f"{name} {told_of(each)}" for name, each in taken.items())
                print(f"{kind:30}{size:>8}  {'   '.join(told)}", flush=True)


def told_of(rounds: list[tuple[float, float]]) -> str:
    """The median round."""
    taken, cpu = (statistics.median(each) for each in zip(*rounds, strict=True))
    return f"{taken:7.1f} ({cpu:.1f})"


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS))
