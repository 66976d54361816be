"""Handled work for tests: events by hand, a real codec, and a `Handling` whose outcomes are kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from pipeline.codec import Codec
from pipeline.event import Event
from pipeline.message import Delivery
from pipeline.topology.load import load_text
from pipeline.worker.effects import EffectsBuilder
from pipeline.worker.handle import Handling
from pipeline.worker.registry import Handler, inspect_handler
from pipeline.worker.work import Failed, Handled, Work

TOPOLOGY = load_text("""\
version: 1
exchanges:
  events: {type: topic}
events:
  order.created: {exchange: events}
  order.noted: {exchange: events}
  payment.taken: {exchange: events, model: "tests.unit.worker.models:PaymentTaken"}
subscriptions:
  payments:
    events: [order.created]
    retry: {attempts: 3, delays: [1s, 5s]}
""").topology
PAYMENTS = TOPOLOGY.subscriptions["payments"]
CODEC = Codec(TOPOLOGY, max_body=1024 * 1024)
LATE = 10.0  # seconds a test waits for what must come


def delivery(tag: int = 1, properties: bytes = b"\0\0", body: bytes = b"1", key: str = "order.created") -> Delivery:
    """A delivery that only stands for itself."""
    return Delivery(tag, 1, False, "events", key, properties, body)


def works(function: Callable[..., Any], data: Iterable[Any], attempt: int = 1) -> list[Work]:
    """One work for each of `data`, with ids e0, e1, ..."""
    handler: Handler = inspect_handler(function)
    return [
        Work(delivery(number + 1), Event("order.created", each, f"e{number}"), handler, attempt)
        for number, each in enumerate(data)
    ]


async def no_rows(statement: object) -> list[Any]:
    """A database without anything in it."""
    return []


class Outcomes:
    """What came of the works."""

    def __init__(self) -> None:
        self.handled: dict[str, Handled] = {}
        self.failed: dict[str, Failed] = {}
        self.order: list[str] = []
        self._more = asyncio.Event()

    def add(self, done: Handled | Failed) -> None:
        """Keep one; a second for the same event is a bug."""
        event_id = done.work.event.id if isinstance(done, Handled) else done.event_id
        assert event_id not in self.order, f"{event_id} has two outcomes"
        self.order.append(event_id)
        if isinstance(done, Handled):
            self.handled[event_id] = done
        else:
            self.failed[event_id] = done
        self._more.set()

    async def all(self, count: int) -> None:
        """Wait until there are so many."""
        async with asyncio.timeout(LATE):
            while len(self.order) < count:
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def handling(
    concurrency: int = 100, seconds: float = LATE, query: Callable[[Any], Awaitable[list[Any]]] = no_rows
) -> AsyncIterator[tuple[Handling, Outcomes]]:
    """The handle stage of `payments` for the block; a handler may take so many `seconds`."""
    outcomes = Outcomes()
    effects = EffectsBuilder("payments", CODEC, CODEC.write_json)
    stage = Handling("payments", concurrency, seconds, effects, query, outcomes.add)
    try:
        yield stage, outcomes
    finally:
        await stage.close()
