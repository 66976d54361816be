"""When a batch breaks on some events' rows, just those events fail, and leave nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import insert, text, update
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlmodel import col

from pipeline.errors import RowRejected
from pipeline.store import CommitReport, Counts, Effects, Outgoing, Store, Upsert
from tests.store.conftest import Look, effects
from tests.store.models import Account, Animal, Deferred, Everything, Ledger, Missing, Payment, RollsBack
from tests.store.places import Place

WRONG: Any = object()  # what a type checker would refuse
NOTHING: Any = None
TEXT: Any = "today"
SEVERAL: Any = ["x"]
CHECK = 'new row for relation "account" violates check constraint "account_amount_check" [23514]'


class Huge(FunctionElement[str]):
    """Text or bytes of 2 GB, which no database makes."""

    inherit_cache = True


@compiles(Huge, "sqlite")
def _huge_in_sqlite(*_: Any, **__: Any) -> str:
    return "zeroblob(2000000000)"


@compiles(Huge, "postgresql")
def _huge_in_postgresql(*_: Any, **__: Any) -> str:
    return "repeat('x', 2000000000)"


@dataclass(frozen=True, slots=True)
class Bad:
    """A write that is refused, and a part of the reason each kind of database gives."""

    write: Any
    sqlite: str
    postgresql: str


BAD = {
    "key that is taken": Bad(
        Payment(order_id=0, customer="x"),
        "UNIQUE constraint failed: payment.order_id",
        'duplicate key value violates unique constraint "payment_pkey" [23505]',
    ),
    "column that is NULL": Bad(
        Payment(order_id=99, customer=NOTHING),
        "NOT NULL constraint failed: payment.customer",
        'null value in column "customer" of relation "payment" violates not-null constraint',
    ),
    "check": Bad(Account(id=99, amount=-1), "CHECK constraint failed", CHECK),
    "foreign key": Bad(Animal(id=99, zoo_id=9), "FOREIGN KEY constraint failed", "animal_zoo_id_fkey"),
    "foreign key checked at commit": Bad(
        Deferred(id=99, zoo_id=9), "FOREIGN KEY constraint failed", "deferred_zoo_id_fkey"
    ),
    "upsert against another constraint": Bad(Upsert(Account(id=99, amount=-1)), "CHECK constraint failed", CHECK),
    "type the driver can't bind": Bad(
        Payment(order_id=99, customer=WRONG),
        "type 'object' is not supported",
        "payment.customer can't take such a value: parameter $2 is not of the type of its column (expected str, got",
    ),
    "several values for one": Bad(
        Payment(order_id=99, customer=SEVERAL), "type 'list' is not supported", "payment.customer can't take several"
    ),
    "type SQLAlchemy can't convert": Bad(
        Everything(id=99, at=TEXT),
        "everything.at can't take such a value (AttributeError",
        "everything.at can't take such a value (AttributeError",
    ),
    "value that is not of the enum": Bad(
        Everything(id=99, colour=WRONG),
        "is not among the defined enum values",
        "is not among the defined enum values",
    ),
    "value that is not JSON": Bad(
        Everything(id=99, document={"a": {1}}), "not JSON serializable", "not JSON serializable"
    ),
    "integer too big": Bad(Payment(order_id=2**63, customer="x"), "too large", "value out of int32 range"),
    "text too big": Bad(
        insert(Payment).values(order_id=99, customer=Huge()), "too big", "requested length too large [54000]"
    ),
    "text that is not Unicode": Bad(
        Payment(order_id=99, customer="\ud800"), "surrogates not allowed", "surrogates not allowed"
    ),
    "missing table": Bad(Missing(id=1), "no such table: missing", 'relation "missing" does not exist'),
    "statement on a missing table": Bad(
        insert(Missing).values(id=1), "no such table: missing", 'relation "missing" does not exist'
    ),
    "statement with a missing column": Bad(
        update(Payment).values(amount=text("absent")), "no such column: absent", 'column "absent" does not exist'
    ),
    "statement against a constraint": Bad(update(Account).values(amount=-1), "CHECK constraint failed", CHECK),
    "conflict that rolls back": Bad(
        RollsBack(id=0), "UNIQUE constraint failed: rollsback.id", 'unique constraint "rollsback_pkey"'
    ),
}


@pytest.fixture
async def filled(store: Store) -> Store:
    """A store that holds a row with the key 0 in several tables."""
    await store.commit([effects(Payment(order_id=0, customer="old"), Account(id=0, amount=0), RollsBack(id=0))])
    return store


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_only_the_event_whose_write_is_bad_is_rejected(place: Place, filled: Store, look: Look, bad: Bad) -> None:
    processed = 0
    for position in (0, 3, 6):
        # given a batch of seven events, one of which writes something bad between things that are good
        first = 10 * position + 1
        batch = [good(number) for number in range(first, first + 7)]
        middle = batch[position]
        batch[position] = Effects("bad", "order.bad", [*middle.writes, bad.write], middle.result, middle.outgoing)

        # when it is committed
        report = await filled.commit(batch)

        # then the six others are there, and nothing of the bad one: no row, no result, no follow-up, no inbox row
        others = [event.event_id for event in batch if event.event_id != "bad"]
        assert report == CommitReport(others, set(), report.rejected)
        assert list(report.rejected) == ["bad"]
        assert isinstance(report.rejected["bad"], RowRejected)
        assert getattr(bad, place.kind) in str(report.rejected["bad"])
        assert str(report.rejected["bad"]).startswith("event bad (order.bad): the database refused its rows: ")
        written = [(number,) for number in range(first, first + 7) if number != first + position]
        assert look(f"SELECT order_id FROM payment WHERE order_id >= {first} ORDER BY 1") == written  # noqa: S608
        processed += 6
        assert await filled.counts() == Counts(1 + processed, processed, processed)
        assert await filled.seen(["bad", *others]) == set(others)

    # and the event is processed once it is mended
    assert (await filled.commit([effects(event_id="bad")])).processed == ["bad"]


async def test_many_bad_events_among_many(filled: Store, look: Look) -> None:
    # given a batch of 600 in which every seventh is bad, and a few are duplicates
    batch = [
        effects(Payment(order_id=0 if number % 7 == 0 else number, customer="x"), event_id=f"{number:03}")
        for number in range(1, 601)
    ]
    await filled.commit([effects(event_id="001"), effects(event_id="007")])

    # when it is committed
    report = await filled.commit(batch)

    # then each is where it belongs
    bad = {f"{number:03}" for number in range(7, 601, 7)} - {"007"}
    assert report.rejected.keys() == bad
    assert report.duplicates == {"001", "007"}
    assert report.processed == [event.event_id for event in batch if event.event_id not in bad | report.duplicates]
    assert look("SELECT count(*) FROM payment") == [(1 + len(report.processed),)]


async def test_a_batch_that_is_all_bad(filled: Store) -> None:
    before = await filled.counts()

    report = await filled.commit([effects(Payment(order_id=0, customer="x"), event_id=f"b{n}") for n in range(5)])

    assert report.processed == []
    assert sorted(report.rejected) == [f"b{n}" for n in range(5)]
    assert await filled.counts() == before


async def test_events_that_are_bad_only_together_lose_the_later_one(store: Store, look: Look) -> None:
    # given two events that want the same unique value
    batch = [effects(Ledger(text="same"), event_id="first"), effects(Ledger(text="same"), event_id="second")]

    # when they are committed together
    report = await store.commit(batch)

    # then it is as if they had come one by one
    assert (report.processed, list(report.rejected)) == (["first"], ["second"])
    assert look("SELECT text FROM ledger") == [("same",)]


async def test_bad_follow_ups_and_results_are_the_events_fault_too(store: Store) -> None:
    # given events with a result that is not UTF-8, and with a follow-up event of a wrong type
    batch = [
        effects(event_id="result", result=b"\xff"),
        effects(event_id="follow-up", outgoing=[Outgoing("x", "k", "m", WRONG, b"")]),
        effects(event_id="good", result=b"1"),
    ]

    # when they are committed
    report = await store.commit(batch)

    # then only the good one is
    assert (report.processed, set(report.rejected)) == (["good"], {"result", "follow-up"})
    assert await store.counts() == Counts(1, 1, 0)


@pytest.mark.parametrize("event_id", ["nul\0", "\ud800"])
async def test_an_id_no_database_can_keep_is_rejected(store: Store, event_id: str) -> None:
    report = await store.commit([effects(event_id=event_id), effects(event_id="nul")])

    assert report.processed == ["nul"]
    assert "holds characters that a database can't keep" in str(report.rejected[event_id])


async def test_a_reason_shows_no_values(store: Store) -> None:
    # given a row with a secret that is refused
    report = await store.commit([effects(Payment(order_id=1, customer="secret", amount=WRONG), event_id="bad")])

    # then the secret is not in the error, which may be logged and sent to the dead-letter queue
    assert "secret" not in str(report.rejected["bad"])


def good(number: int) -> Effects:
    """An event that writes into several tables, by row, upsert and statement, with a result and a follow-up event."""
    return effects(
        Payment(order_id=number, customer="x"),
        Upsert(Account(id=number, amount=number)),
        update(Account).where(col(Account.id) == number).values(limit=5),
        Everything(id=1000 + number, at=datetime(2026, 1, 1, tzinfo=UTC)),
        event_id=f"good{number}",
        result=b"true",
        outgoing=[Outgoing("x", "k", f"m{number}", b"", b"")],
    )
