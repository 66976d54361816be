"""What is old goes, and nothing that is still needed; while others work, in steps that can end at any moment."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import product

import pytest
from sqlalchemy.engine import make_url

from pipeline.errors import ConfigurationError
from pipeline.event import utc_now
from pipeline.store import Effects, Outgoing, Store
from pipeline.store.consumers import ConsumerRow
from pipeline.store.failures import FailureNote
from pipeline.store.migrating import Target
from pipeline.store.ordered.lines import MARKER_TYPE, Entry, LineRow
from pipeline.store.producer import ProducerStore
from pipeline.store.pruning import BY_INDEX, SLICE, Old, counted, deletion, end_of_slice, look, remove
from pipeline.store.retention import RULES, USUAL, WHAT, check_age, what_of
from pipeline.store.revisions import PRODUCER, WORKER, Family
from pipeline.store.times import as_text
from tests.store.conftest import Look, effects
from tests.store.events import event
from tests.store.models import TABLES
from tests.store.places import Place

NOW = utc_now()
BEFORE = NOW - timedelta(days=30)
LONG_AGO = NOW - timedelta(days=60)
LATELY = NOW - timedelta(days=1)
ROWS = 3 * SLICE + SLICE // 2
# Both kinds of database: so many events, every second one old, their ids in no order of time.
MANY = {
    "sqlite": (
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?)"
        " INSERT INTO pipeline_inbox SELECT 'payments', 'e' || (n * 7919 % 1000003), 't',"
        " CASE n % 2 WHEN 0 THEN ? ELSE ? END FROM n"
    ),
    "postgresql": (
        "INSERT INTO pipeline_inbox SELECT 'payments', 'e' || (n::bigint * 7919 % 1000003), 't',"
        " CASE n % 2 WHEN 0 THEN $2 ELSE $3 END FROM generate_series(1, $1) AS n"
    ),
}


def target(place: Place, family: Family = WORKER, *serves: str) -> Target:
    return Target("it", place.url.replace("{subscription}", "payments"), "payments", family, serves or ("payments",))


async def pruned(place: Place, *what: str, family: Family = WORKER, before: datetime = BEFORE) -> dict[str, int]:
    """Prune; how many rows went from each table."""
    gone: dict[str, int] = {}

    def watch(each: Old, rows: int) -> None:
        gone[each.rule.table.name] = gone.get(each.rule.table.name, 0) + rows

    found = await look(target(place, family), what or USUAL, before, lambda _: None)
    await remove(target(place, family), found, before, watch)
    # what was found is what went, but for leftover notes, which two rules may meet
    assert sum(each.old for each in found) == sum(gone.values())
    return gone


def many(place: Place, count: int) -> None:
    place.look(MANY[place.kind], count, as_text(LONG_AGO), as_text(LATELY))


def ids(place: Place, table: str) -> list[str]:
    return [row[0] for row in place.look(f"SELECT event_id FROM {table} ORDER BY event_id")]  # noqa: S608 - ours


async def test_old_inbox_rows_go_and_young_ones_and_results_stay(place: Place, store: Store) -> None:
    # given events that were processed, some of them long ago, and those of another subscription
    other = await Store.open(target(place).url, "other", TABLES)
    for each in (store, other):
        await each.commit([effects(event_id=name, result=b"1") for name in ("old", "young")])
    place.look(
        f"UPDATE pipeline_inbox SET processed_at = '{as_text(LONG_AGO)}' WHERE event_id = 'old'"  # noqa: S608
    )
    place.look(f"UPDATE pipeline_result SET created_at = '{as_text(LONG_AGO)}' WHERE event_id = 'old'")  # noqa: S608

    # when the subscription's old rows are removed, then its old event is forgotten, and nothing else
    assert await pruned(place) == {"pipeline_inbox": 1}
    assert place.look("SELECT subscription, event_id FROM pipeline_inbox ORDER BY 1, 2") == [
        ("other", "old"),
        ("other", "young"),
        ("payments", "young"),
    ]
    # and what handlers returned only goes when that is said
    assert ids(place, "pipeline_result") == ["old", "old", "young", "young"]
    assert await pruned(place, "results") == {"pipeline_result": 1}
    assert ids(place, "pipeline_result") == ["old", "young", "young"]
    # and again there is nothing to do
    assert await pruned(place) == {}
    await other.close()


async def test_notes_of_what_is_still_tried_again_stay(place: Place, store: Store) -> None:
    # given old notes: of an event that is tried again, of dead ones, of two that were processed after all
    note = FailureNote("retrying", "t", "retrying", 1, LONG_AGO, "", "why", LONG_AGO)
    dead = replace(note, event_id="dead", state="dead", next_at=None, reason="exhausted")
    await store.note_failures(
        [
            note,
            dead,
            replace(dead, event_id="recently dead", at=LATELY),
            replace(dead, event_id="redriven"),
            replace(note, event_id="late"),
        ]
    )
    await store.commit([effects(event_id="redriven"), effects(event_id="late")])
    place.look(f"UPDATE pipeline_inbox SET processed_at = '{as_text(LONG_AGO)}'")  # noqa: S608 - our own

    # when notes go, then of the dead; a status may still be asked of the others
    assert await pruned(place, "notes") == {"pipeline_failure": 1}
    assert ids(place, "pipeline_failure") == ["late", "recently dead", "redriven", "retrying"]

    # when inbox rows go, then what was left of notes goes before: else they would say that the events still fail
    assert await pruned(place, "inbox") == {"pipeline_failure": 2, "pipeline_inbox": 2}
    assert ids(place, "pipeline_failure") == ["recently dead", "retrying"]


async def test_what_holds_up_a_key_and_what_may_come_again_stays(place: Place, store: Store) -> None:
    # given lines of failed events, all of them old
    ordered = store.ordered()
    epoch = await ordered.take("q", "me")
    rows = [
        (LineRow("first", "k", "dead", 3), True),
        (LineRow("behind", "k", "parked", 0), True),
        (LineRow("buried", "j", "dead", 3), False),
        (LineRow("retrying", "i", "retrying", 1, 0, LONG_AGO), False),
    ]
    await ordered.commit(
        [Entry("q", row.key, row.event_id, None, row, False, holds) for row, holds in rows], {"q": epoch}
    )
    place.look(f"UPDATE pipeline_line SET at = '{as_text(NOW - timedelta(days=2))}'")  # noqa: S608 - our own

    # when they are removed after a day, then the dead one that holds nobody up stays too: it may come again for a week
    assert await pruned(place, "order", before=LATELY) == {}
    place.look(f"UPDATE pipeline_line SET at = '{as_text(LONG_AGO)}'")  # noqa: S608 - our own
    assert await pruned(place, "order") == {"pipeline_line": 1}
    assert ids(place, "pipeline_line") == ["behind", "first", "retrying"]
    # and a marker, whose fellows a worker may wait for, and who may commit is still known
    await store.commit([Effects("marker-1", MARKER_TYPE)])
    place.look(f"UPDATE pipeline_inbox SET processed_at = '{as_text(LONG_AGO)}'")  # noqa: S608 - our own
    assert await pruned(place) == {}
    assert await ordered.take("q", "other") == epoch + 1


async def test_processes_that_are_gone_for_long_are_forgotten(place: Place, store: Store) -> None:
    gone = ConsumerRow("w1", "worker", "host", 42, "0.1.0", LONG_AGO, LONG_AGO)
    lives = replace(gone, id="w2", last_seen=LATELY)
    for each in (gone, lives):
        await store.note_consumer(each, ["order.created", "order.paid"], LONG_AGO - timedelta(days=1))

    assert await pruned(place, "consumers") == {"pipeline_subscription": 2, "pipeline_consumer": 1}

    assert [(row.id, types) for row, types in await store.consumers()] == [("w2", ("order.created", "order.paid"))]


async def test_follow_ups_that_wait_to_be_published_stay(place: Place, store: Store) -> None:
    follow_up = Outgoing("events", "order.paid", "m", b"{}", b"", key="000000000001-1")
    await store.commit([effects(event_id="a", outgoing=[follow_up])])
    place.look(f"UPDATE pipeline_outbox SET created_at = '{as_text(LONG_AGO)}'")  # noqa: S608 - our own

    await pruned(place, *WHAT)

    assert len(await store.outgoing(10)) == 1


async def test_accepted_events_stay_until_they_are_published_and_old(
    place: Place, producer: ProducerStore, look: Look
) -> None:
    # given accepted events: published long ago, published lately, never; another that was accepted long before it went
    await producer.accept([event(name) for name in ("old", "young", "waiting", "late")], 100)
    for at, published, name in [
        (LONG_AGO, LONG_AGO, "old"),
        (LATELY, LATELY, "young"),
        (LONG_AGO, None, "waiting"),
        (LONG_AGO, LATELY, "late"),
    ]:
        then = f"'{as_text(published)}'" if published else "NULL"
        look(
            f"UPDATE pipeline_event SET accepted_at = '{as_text(at)}', published_at = {then}"  # noqa: S608 - our own
            f" WHERE id = '{name}'"
        )

    # when old events are removed, then the first one
    assert await pruned(place, family=PRODUCER) == {"pipeline_event": 1}
    assert look("SELECT id FROM pipeline_event ORDER BY id") == [("late",), ("waiting",), ("young",)]
    assert [row.event_id for row in await producer.waiting(10)] == ["old", "young", "waiting", "late"]
    # and nothing of it is for a worker's tables
    assert await pruned(place, "inbox", family=PRODUCER) == {}


async def test_a_large_table_goes_slice_by_slice(place: Place, store: Store) -> None:
    # given more rows than several slices hold, old and young ones mixed
    many(place, ROWS)

    (found,) = [each for each in await look(target(place), ("inbox",), BEFORE, lambda _: None) if each.rows]

    assert (found.rows, found.old, len(found.slices)) == (ROWS, ROWS // 2, 4)
    assert await pruned(place, "inbox") == {"pipeline_inbox": ROWS // 2}
    assert place.look("SELECT count(*), min(processed_at) FROM pipeline_inbox") == [(ROWS // 2, as_text(LATELY))]


async def test_it_may_end_at_any_moment(place: Place, store: Store) -> None:
    # given a removal that is cancelled when its second slice is gone
    many(place, 3 * SLICE)
    found = await look(target(place), ("inbox",), BEFORE, lambda _: None)
    counts: list[int] = []

    def watch(_: Old, rows: int) -> None:
        counts.append(rows)
        if len(counts) == 2:
            task.cancel()

    task = asyncio.create_task(remove(target(place), found, BEFORE, watch))
    with pytest.raises(asyncio.CancelledError):
        await task

    # then these are gone, the others are there
    ((left,),) = place.look("SELECT count(*) FROM pipeline_inbox")
    assert left == 3 * SLICE - sum(counts)
    # and the next one does the rest; what is old by then is found out by each slice itself
    place.look(f"UPDATE pipeline_inbox SET processed_at = '{as_text(LATELY)}' WHERE event_id < 'e5'")  # noqa: S608
    ((spared,),) = place.look("SELECT count(*) FROM pipeline_inbox WHERE event_id < 'e5'")
    await remove(target(place), found, BEFORE, lambda _, rows: counts.append(rows))
    assert place.look("SELECT count(*) FROM pipeline_inbox WHERE event_id < 'e5'") == [(spared,)]
    assert place.look(f"SELECT count(*) FROM pipeline_inbox WHERE processed_at < '{as_text(BEFORE)}'") == [(0,)]  # noqa: S608


async def test_workers_commit_meanwhile(place: Place) -> None:
    # given a worker that waits 0.2 s for a lock, and no longer
    store = await Store.open(place.impatient, "payments", TABLES)
    many(place, 20 * SLICE)
    committed = 0
    done = asyncio.Event()

    async def work() -> None:
        nonlocal committed
        while not done.is_set():
            await store.commit([effects(event_id=f"new{committed}-{number}") for number in range(20)])
            committed += 20

    working = asyncio.create_task(work())
    # when old rows are removed, then its transactions go on in between
    assert await pruned(place, "inbox") == {"pipeline_inbox": 10 * SLICE}
    done.set()
    await working
    assert committed > 20
    assert place.look("SELECT count(*) FROM pipeline_inbox") == [(10 * SLICE + committed,)]
    await store.close()


async def test_a_database_that_is_not_there_is_not_made(place: Place) -> None:
    beside = place.beside()
    assert await look(target(beside), WHAT, BEFORE, lambda _: None) == []
    if place.kind == "postgresql":
        assert beside.look("SELECT count(*) FROM pg_class WHERE relname LIKE 'pipeline%'") == [(0,)]


async def test_no_statement_reads_a_table_from_end_to_end(place: Place, store: Store, producer: ProducerStore) -> None:
    # given a database that nobody has ever counted, as its planner finds it
    dialect = make_url(place.url.replace("{subscription}", "payments")).get_dialect()()
    if place.kind == "postgresql":
        place.look(BY_INDEX.format(local="false"))

    # then each statement finds its rows through an index
    for rule, after in product(RULES, (None, as_text(LONG_AGO))):
        piece = (after, as_text(LATELY))
        for statement in (
            end_of_slice(rule, "payments", BEFORE, after),
            counted(rule, "payments", BEFORE, piece),
            deletion(rule, "payments", BEFORE, piece),
        ):
            text = str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
            explain = "EXPLAIN QUERY PLAN" if place.kind == "sqlite" else "EXPLAIN (FORMAT JSON)"
            plan = json.dumps([list(map(str, row)) for row in place.look(f"{explain} {text}")])
            assert not re.search(r"SCAN pipeline_|Seq Scan", plan), f"{text}\n{plan}"
            assert re.search(r"SEARCH pipeline_|Index (Only )?Scan|Tid Scan", plan), f"{text}\n{plan}"


def test_what_is_meant() -> None:
    assert what_of([]) == ("notes", "inbox", "order", "consumers", "events")
    assert what_of(["inbox, results", "events"]) == ("inbox", "results", "events")
    with pytest.raises(ConfigurationError, match="'outbox' is nothing that can be removed; there are notes, inbox"):
        what_of(["inbox,outbox"])


def test_what_would_have_events_processed_twice_is_refused() -> None:
    day = 86_400.0
    check_age(7 * day, USUAL, 7 * day)
    check_age(day, USUAL, None)
    check_age(day, ("notes", "events"), 7 * day)
    with pytest.raises(ConfigurationError, match=r"for 7 d \(max_age\), and inbox rows older than 1 d would go"):
        check_age(day, USUAL, 7 * day)
    with pytest.raises(ConfigurationError, match="younger than 1 hour may still be in use"):
        check_age(3599, ("notes",), None)
