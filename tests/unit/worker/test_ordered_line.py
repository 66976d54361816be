"""Turns of a key's events: what is void does not run twice at once, and a parked key is not asked about too early."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from pipeline.event import Event
from pipeline.message import Delivery
from pipeline.properties import Properties
from pipeline.store.ordered.lines import LineRow
from pipeline.store.writes import Effects
from pipeline.topology.load import load_text
from pipeline.worker.ordered.flow import Flow
from pipeline.worker.ordered.life import Life
from pipeline.worker.ordered.line import Item, Line
from pipeline.worker.ordered.step import Step
from pipeline.worker.registry import Handler
from pipeline.worker.work import Handled, Work

HANDLER = Handler(lambda event: None, False, False, False, None, None)
TOPOLOGY = """
version: 1
exchanges: {events: {}}
events: {e: {}}
subscriptions: {s: {events: [e], order_by: data.k, on_dead: park}}
"""


def item_of(number: int) -> Item:
    """An event of key "a"."""
    delivery = Delivery(number, 1, False, "", "e", b"", b"")
    delivery.use(Properties(message_id=str(number), type="e"), b"{}")
    return Item(delivery, "a", str(number), Work(delivery, Event("e", {}, str(number)), HANDLER, 1), None)


def test_what_is_void_and_still_in_its_handler_is_not_begun_again() -> None:
    # Given an event that waits for its commit, and the next one in its handler
    line = Line()
    first, second = item_of(1), item_of(2)
    line.add(first)
    line.add(second)
    assert line.next() is first
    line.handled(first)
    assert line.next() is second
    second.running = True

    # When the first one's commit is refused, and it is handled again
    line.reset()
    assert line.next() is first
    line.handled(first)

    # Then the second's turn comes when its void call has ended, not before
    assert line.next() is None
    second.running = False
    assert line.next() is second


async def test_a_parked_key_is_asked_about_only_when_what_is_ahead_is_committed() -> None:
    # Given a parked key that waits for an event, which comes with the one behind it
    asked: list[str] = []
    steps: list[Step] = []
    works: list[Work] = []
    waiting = ["1", "2"]

    async def first_in_line(key: str) -> str | None:
        asked.append(key)
        return waiting[0] if waiting else None

    subscription = load_text(TOPOLOGY).topology.subscriptions["s"]
    flow = Flow(subscription, steps.append, steps.append, works.extend, lambda life, item: None, first_in_line)
    rows = {event_id: LineRow(event_id, "a", "parked", 1, 0, None, place) for place, event_id in enumerate(waiting, 1)}
    life = Life("q", cast(Any, None), 1, 1, rows)
    first, second = item_of(1), item_of(2)
    for item in (first, second):
        item.row = rows[item.event_id]
        life.add(item)
    flow.arrived(life, [first, second])
    for _ in range(3):
        await asyncio.sleep(0)
    assert [work.event.id for work in works] == ["1"]

    # When it is handled and not committed yet
    flow.ended(Handled(works[0], Effects("1", "e")))
    for _ in range(3):
        await asyncio.sleep(0)

    # Then nobody asks for whom the key waits: the answer would be of before
    assert asked == ["a"]
    waiting.pop(0)
    flow.committed(steps[0])
    for _ in range(3):
        await asyncio.sleep(0)
    assert asked == ["a", "a"]
    assert [work.event.id for work in works] == ["1", "2"]
