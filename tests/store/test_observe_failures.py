"""What is kept of failures, and of worker processes, beside the inbox."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.errors import StoreUnavailable
from pipeline.store import Store
from pipeline.store.consumers import ConsumerRow
from pipeline.store.failures import LONGEST_ID, FailureNote
from tests.store.conftest import Look, effects
from tests.store.models import TABLES
from tests.store.places import Place, SqliteFile

NOW = datetime(2026, 1, 31, 12, 0, 0, 123_000, tzinfo=UTC)
NOTE = FailureNote("a", "order.created", "retrying", 1, NOW + timedelta(seconds=5), "", "Retry: the bank is slow", NOW)
WORKER = ConsumerRow("w1", "pipeline worker payments", "host", 42, "0.1.0", NOW, NOW)
SECOND = timedelta(seconds=1)


async def test_notes_come_back(store: Store) -> None:
    dead = replace(NOTE, event_id="b", state="dead", next_at=None, reason="exhausted", attempt=3)
    await store.note_failures([NOTE, dead])
    assert await store.failures(["a", "b", "c", "nul\0"]) == {"a": NOTE, "b": dead}


async def test_a_newer_note_takes_the_place_of_an_older_in_whatever_order_they_come(store: Store) -> None:
    # given two workers that tell of two attempts of one event, the first one late
    second = replace(NOTE, attempt=2, at=NOW + SECOND, error="again")
    await store.note_failures([second])
    await store.note_failures([NOTE])
    assert await store.failures(["a"]) == {"a": second}
    # and of two in one bulk the last one counts
    third = replace(second, attempt=3, at=NOW + 2 * SECOND)
    await store.note_failures([NOTE, second, third])
    assert await store.failures(["a"]) == {"a": third}


async def test_notes_that_can_not_be_kept_cost_their_neighbours_nothing(store: Store) -> None:
    odd = [replace(NOTE, event_id=each) for each in ("", "nul\0", "\udc80", "x" * (LONGEST_ID + 1), "☃" * LONGEST_ID)]
    rude = replace(NOTE, event_id="rude", event_type="nul\0", error="\udc80 \0" + "x" * 100_000)
    await store.note_failures([*odd, NOTE, rude])
    found = await store.failures([each.event_id for each in (*odd, NOTE, rude)])
    assert set(found) == {"a", "rude", "☃" * LONGEST_ID}
    assert len(found["rude"].error) == 2000


async def test_notes_are_forgotten(store: Store) -> None:
    await store.note_failures([replace(NOTE, event_id=str(number)) for number in range(2500)])
    await store.forget_failures([str(number) for number in range(2000)] + ["never there", "nul\0"])
    assert len(await store.failures([str(number) for number in range(2500)])) == 500


async def test_notes_are_of_one_subscription(place: Place, store: Store, look: Look) -> None:
    await store.note_failures([NOTE])
    other = await Store.open(place.url, "other", TABLES)
    assert await other.failures(["a"]) == {}
    await other.forget_failures(["a"])
    assert await store.failures(["a"]) == {"a": NOTE}
    await other.close()


async def test_processes_that_note_the_same_events_do_not_lock_each_other_out(place: Place) -> None:
    stores = [await Store.open(place.url, "payments", TABLES) for _ in range(4)]
    notes = [replace(NOTE, event_id=str(number)) for number in range(500)]
    orders = [notes, notes[::-1], notes[250:] + notes[:250], notes[::2] + notes[1::2]]
    for _ in range(5):
        await asyncio.gather(*(store.note_failures(order) for store, order in zip(stores, orders, strict=True)))
    assert len(await stores[0].failures([note.event_id for note in notes])) == 500
    for store in stores:
        await store.close()


async def test_when_and_with_what_an_event_was_processed(store: Store) -> None:
    began = datetime.now(UTC) - SECOND
    await store.commit([effects(event_id="a", result=b'{"paid": true}'), effects(event_id="b")])
    at = await store.processed("a")
    assert at is not None
    assert began < at < datetime.now(UTC) + SECOND
    assert await store.result("a") == b'{"paid": true}'
    # an event whose handler returned nothing is processed all the same
    assert await store.processed("b") is not None
    for nothing in ("b", "c", "nul\0", "\udc80", "' OR 1=1 --"):
        assert await store.result(nothing) is None
    assert await store.processed("c") is None
    assert await store.processed("\udc80") is None


async def test_a_process_tells_of_itself_again_and_again(store: Store) -> None:
    long_ago = NOW - timedelta(hours=1)
    await store.note_consumer(WORKER, ["order.created", "order.paid"], long_ago)
    later = replace(WORKER, last_seen=NOW + 5 * SECOND)
    await store.note_consumer(later, ["order.created", "order.paid"], long_ago)
    assert await store.consumers() == [(later, ("order.created", "order.paid"))]
    # until it ends in order
    await store.forget_consumer("w1")
    assert await store.consumers() == []


async def test_those_that_live_forget_those_that_are_gone_for_long(store: Store, look: Look) -> None:
    await store.note_consumer(WORKER, ["order.created"], NOW)
    new = replace(WORKER, id="w2", started=NOW + SECOND, last_seen=NOW + SECOND)
    await store.note_consumer(new, [], NOW)
    assert [row.id for row, _ in await store.consumers()] == ["w1", "w2"]
    await store.note_consumer(new, [], NOW + SECOND)
    assert await store.consumers() == [(new, ())]
    assert look("SELECT count(*) FROM pipeline_subscription") == [(0,)]


@pytest.mark.parametrize("writes", ["note_failures", "note_consumer"])
async def test_a_lock_of_another_program_is_nobodys_fault(sqlite_place: SqliteFile, writes: str) -> None:
    store = await Store.open(sqlite_place.impatient, "payments", TABLES)
    with sqlite_place.locked(), pytest.raises(StoreUnavailable):
        await (store.note_failures([NOTE]) if writes == "note_failures" else store.note_consumer(WORKER, ["x"], NOW))
    await store.note_failures([NOTE])
    await store.close()
