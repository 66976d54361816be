"""What one process can see of order: shares, giving back, questions to the database, attempts, foreign events, replays.

The broker and the database are real; the worker runs in the test's own process.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Field, SQLModel, select

from pipeline import Context, Event, Reject
from pipeline.message import FORCED, REPLAY
from pipeline.properties import Properties
from pipeline.worker.ordered import owning
from tests.ordering.inside import Place, at_work, place_at
from tests.support.application import Application
from tests.support.broker import TestVhost
from tests.support.topologies import until

KEYS = [f"sku-{number}" for number in range(60)]  # enough that every partition has some
RETRY = "partitions: 1, retry: {attempts: 3, delays: [3s]}"
OWNERS = "SELECT count(*) FROM pipeline_partition GROUP BY owner ORDER BY 1"
EFFECTS = "SELECT sku, number FROM stock_move ORDER BY row"


class Move(SQLModel, table=True):
    __tablename__ = "stock_move"
    row: int | None = Field(default=None, primary_key=True)
    sku: str
    number: int


Handle = Callable[[Event[Any], Context], Awaitable[Any]]


async def move(event: Event[Any], context: Context) -> Any:
    """Writes down what came."""
    return Move(sku=event.data.get("sku", ""), number=event.data["number"])


def failing_once(key: str, number: int, attempts: list[int]) -> Handle:
    """Fails the first attempt at one event; `attempts` are those it saw."""

    async def handle(event: Event[Any], context: Context) -> Any:
        if (event.data["sku"], event.data["number"]) == (key, number):
            attempts.append(context.attempt)
            if context.attempt == 1:
                raise RuntimeError("not now")
        return await move(event, context)

    return handle


def sequences(place: Place) -> dict[str, list[int]]:
    """The numbers of each key, in the order of their effects."""
    found: dict[str, list[int]] = defaultdict(list)
    for sku, number in place.look(EFFECTS):
        found[sku].append(number)
    return dict(found)


async def test_partitions_are_shared_by_those_who_are_there(vhost: TestVhost, tmp_path: Path) -> None:
    # Given one process that has all partitions, for it came first, and events that go on coming
    place = await place_at(vhost, tmp_path, "partitions: 6")
    published = 0
    enough = asyncio.Event()

    async def feed() -> None:
        nonlocal published
        while not enough.is_set():
            await place.publish(*((key, published) for key in KEYS))
            published += 1

    async with at_work(place, move, (Move,)):
        feeding = asyncio.create_task(feed())
        await place.until(OWNERS, [(6,)])

        # When a second and a third join, then each has its share
        async with at_work(place, move, (Move,)):
            await place.until(OWNERS, [(3,), (3,)])
            async with at_work(place, move, (Move,)):
                await place.until(OWNERS, [(2,), (2,), (2,)])

            # And when one ends, the others take over its share, evenly
            await place.until(OWNERS, [(3,), (3,)])
        enough.set()
        await feeding
        await place.until("SELECT count(*) FROM stock_move", [(published * len(KEYS),)])

    # And whoever had a partition: every key is in order
    assert sequences(place) == {key: list(range(published)) for key in KEYS}


async def test_what_is_held_for_long_is_given_back_and_keeps_its_turn(
    vhost: TestVhost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker that holds nothing for long, and an event that waits for its second attempt
    monkeypatch.setattr(owning, "HELD", 0.5)
    place = await place_at(vhost, tmp_path, RETRY)
    attempts: list[int] = []
    await place.publish(*(("a", number) for number in range(5)))

    # When it is worked on
    async with at_work(place, failing_once("a", 1, attempts), (Move,)):
        await place.until(EFFECTS, [("a", number) for number in range(5)])

    # Then the partition was given back and taken again, and the event's attempts went on
    assert place.look("SELECT epoch > 1 FROM pipeline_partition") == [(1,)]
    assert attempts == [1, 2]


async def test_attempts_survive_a_crash(vhost: TestVhost, tmp_path: Path) -> None:
    # Given an event whose first attempt failed
    place = await place_at(vhost, tmp_path, RETRY)
    attempts: list[int] = []
    handle = failing_once("a", 0, attempts)
    await place.publish(("a", 0), ("a", 1))
    async with at_work(place, handle, (Move,)) as inside:
        await place.until("SELECT state, attempt FROM pipeline_line", [("retrying", 1)])

        # When its worker is gone while it waits
        await inside.crash()
    assert place.look(EFFECTS) == []

    # Then the next one makes the second attempt, in its turn
    async with at_work(place, handle, (Move,)):
        await place.until(EFFECTS, [("a", 0), ("a", 1)])
    assert attempts == [1, 2]


async def test_a_question_sees_what_the_events_before_have_written(vhost: TestVhost, tmp_path: Path) -> None:
    # Given a handler that counts what is there of its key
    place = await place_at(vhost, tmp_path)
    saw: dict[int, list[int]] = {}

    async def handle(event: Event[Any], context: Context) -> Any:
        number = event.data["number"]
        rows = await context.query(select(Move.number).where(Move.sku == event.data["sku"]))
        saw[number] = sorted(int(row[0] if isinstance(row, tuple) else row) for row in rows)
        return await move(event, context)

    # When events of a key come at once
    await place.publish(*(("a", number) for number in range(30)))
    async with at_work(place, handle, (Move,)):
        await place.until(EFFECTS, [("a", number) for number in range(30)])

    # Then each has seen all those before it
    assert saw == {number: list(range(number)) for number in range(30)}


def foreign(number: int, data: dict[str, Any], **headers: Any) -> tuple[Properties, bytes]:
    """As another program publishes."""
    name = f"{data.get('sku', 'none')}-{number}"
    properties = Properties(message_id=name, type="stock.moved", content_type="application/json", headers=headers)
    return properties, json.dumps({**data, "number": number}).encode()


@pytest.mark.parametrize(("on_missing_key", "processed"), [("default", range(4)), ("reject", ())])
async def test_events_of_other_programs(
    vhost: TestVhost, tmp_path: Path, on_missing_key: str, processed: range
) -> None:
    # Given events without the header, and some without any key
    place = await place_at(vhost, tmp_path, f"partitions: 4, on_missing_key: {on_missing_key}")
    app = Application(vhost, tmp_path)
    keyed = [foreign(number, {"sku": sku}) for number in range(4) for sku in "ab"]
    keyless = [foreign(number, {}) for number in range(4)]
    await app.put_raw("stock.moved", *keyed, *keyless, exchange="events")

    # When they are worked on
    wanted = {"a": list(range(4)), "b": list(range(4))} | ({"": list(processed)} if processed else {})
    async with at_work(place, move, (Move,)):
        await place.until("SELECT count(*) FROM stock_move", [(sum(map(len, wanted.values())),)])

        # Then those with a key in the data are in order; the others are one key together, or dead
        async def letters() -> bool:
            return place.letters() == ([] if processed else [f"none-{number}" for number in range(4)])

        await until(letters, "dead letters")
    assert sequences(place) == wanted


async def test_a_replay_counts_once_and_a_forced_one_once_more(vhost: TestVhost, tmp_path: Path) -> None:
    # Given an event that was processed and one that is dead
    place = await place_at(vhost, tmp_path)
    app = Application(vhost, tmp_path)
    mended: list[bool] = []

    async def handle(event: Event[Any], context: Context) -> Any:
        if event.data["number"] == 1 and not mended:
            raise Reject("not before it is mended")
        return await move(event, context)

    await place.publish(("a", 0), ("a", 1))
    async with at_work(place, handle, (Move,)):
        await place.until("SELECT event_id, state FROM pipeline_line", [("a-1", "dead")])
        await place.until(EFFECTS, [("a", 0)])

        # When both are replayed, with force and twice (an interrupted replay begins a little earlier), and without
        mended.append(True)
        header = {"pipeline-key-data.sku": "a"}
        plain = [foreign(number, {"sku": "a"}, **header, **{REPLAY: "r1"}) for number in (0, 1)]
        forced = [foreign(0, {"sku": "a"}, **header, **{REPLAY: "r2", FORCED: True}) for _ in range(2)]
        last = foreign(2, {"sku": "a"}, **header)
        await app.put_raw("stock.moved", *plain, *forced, *plain, last, exchange="stock.partitions")
        await place.until("SELECT count(*) FROM stock_move WHERE number = 2", [(1,)])

    # Then the plain one processed what was dead, and the forced one the other, each once
    assert place.look(EFFECTS) == [("a", 0), ("a", 1), ("a", 0), ("a", 2)]
    assert place.look("SELECT event_id FROM pipeline_inbox ORDER BY 1") == [
        ("a-0",),
        ("a-0#replay-r2",),
        ("a-1",),
        ("a-2",),
    ]
