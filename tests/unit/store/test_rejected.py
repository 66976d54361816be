"""When a batch breaks on some events' rows, just those events fail, and leave nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import func, insert, text, update
from sqlmodel import col

from pipeline.errors import RowRejected
from pipeline.store import CommitReport, Counts, Effects, Outgoing, Store, Upsert, Write
from tests.unit.store.conftest import Look, effects
from tests.unit.store.models import Account, Animal, Deferred, Everything, Ledger, Missing, Payment, RollsBack

WRONG: Any = object()  # what a type checker would refuse
NOTHING: Any = None
TEXT: Any = "today"

BAD: dict[str, tuple[Write, str]] = {
    "key that is taken": (Payment(order_id=0, customer="x"), "UNIQUE constraint failed: payment.order_id"),
    "column that is NULL": (Payment(order_id=9, customer=NOTHING), "NOT NULL constraint failed: payment.customer"),
    "check": (Account(id=9, amount=-1), "CHECK constraint failed"),
    "foreign key": (Animal(id=9, zoo_id=9), "FOREIGN KEY constraint failed"),
    "foreign key checked at commit": (Deferred(id=9, zoo_id=9), "FOREIGN KEY constraint failed"),
    "upsert against another constraint": (Upsert(Account(id=9, amount=-1)), "CHECK constraint failed"),
    "type the driver can't bind": (Payment(order_id=9, customer=WRONG), "type 'object' is not supported"),
    "type SQLAlchemy can't convert": (
        Everything(id=9, at=TEXT),
        "everything.at can't take such a value (AttributeError",
    ),
    "value that is not of the enum": (Everything(id=9, colour=WRONG), "is not among the defined enum values"),
    "value that is not JSON": (Everything(id=9, document={"a": {1}}), "not JSON serializable"),
    "integer too big": (Payment(order_id=2**63, customer="x"), "too large"),
    "text too big": (insert(Payment).values(order_id=9, customer=func.zeroblob(2_000_000_000)), "too big"),
    "text that is not Unicode": (Payment(order_id=9, customer="\ud800"), "surrogates not allowed"),
    "not a number": (Everything(id=9, price=Decimal("NaN")), "NOT NULL constraint failed: everything.price"),
    "missing table": (Missing(id=1), "no such table: missing"),
    "statement on a missing table": (insert(Missing).values(id=1), "no such table: missing"),
    "statement with a missing column": (update(Payment).values(amount=text("absent")), "no such column: absent"),
    "statement against a constraint": (update(Account).values(amount=-1), "CHECK constraint failed"),
    "conflict that rolls back": (RollsBack(id=0), "UNIQUE constraint failed: rollsback.id"),
}


@pytest.fixture
async def filled(store: Store) -> Store:
    """A store that holds a row with the key 0 in several tables."""
    await store.commit([effects(Payment(order_id=0, customer="old"), Account(id=0, amount=0), RollsBack(id=0))])
    return store


@pytest.mark.parametrize("position", [0, 3, 6])
@pytest.mark.parametrize(("write", "reason"), BAD.values(), ids=BAD)
async def test_only_the_event_whose_write_is_bad_is_rejected(
    filled: Store, look: Look, write: Any, reason: str, position: int
) -> None:
    # given a batch of seven events, one of which writes something bad between things that are good
    batch = [good(number) for number in range(1, 8)]
    middle = batch[position]
    batch[position] = Effects("bad", "order.bad", [*middle.writes, write], middle.result, middle.outgoing)

    # when it is committed
    report = await filled.commit(batch)

    # then the six others are there, and nothing of the bad one: no row, no result, no follow-up event, no inbox row
    others = [event.event_id for event in batch if event.event_id != "bad"]
    assert report == CommitReport(others, set(), report.rejected)
    assert list(report.rejected) == ["bad"]
    assert isinstance(report.rejected["bad"], RowRejected)
    assert reason in str(report.rejected["bad"])
    assert str(report.rejected["bad"]).startswith("event bad (order.bad): the database refused its rows: ")
    assert look("SELECT order_id FROM payment WHERE order_id > 0") == [(n,) for n in range(1, 8) if n != position + 1]
    assert await filled.counts() == Counts(1 + 6, 6, 6)
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
        Everything(id=100 + number, at=datetime(2026, 1, 1, tzinfo=UTC)),
        event_id=f"good{number}",
        result=b"true",
        outgoing=[Outgoing("x", "k", f"m{number}", b"", b"")],
    )
