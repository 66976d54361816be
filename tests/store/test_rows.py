"""Rows arrive as SQLAlchemy's own session would write them; upserts set what was given and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, insert, make_url, update
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlmodel import SQLModel, col

from pipeline.store import Store, Upsert
from tests.store.conftest import Look, effects
from tests.store.models import (
    TABLES,
    Account,
    Animal,
    Colour,
    Counted,
    Defaults,
    Everything,
    Ledger,
    OnlyId,
    Payment,
    Plain,
    Touched,
    Wide,
    Zoo,
)
from tests.store.places import Place

TOKEN = UUID(int=7)
DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}


def some(table: type[SQLModel], **columns: Any) -> SQLModel:
    """A row with just these columns, though the class requires more."""
    return table(**columns)


MAKE_ROWS: dict[str, Callable[[], list[SQLModel]]] = {
    "given": lambda: [Payment(order_id=1, customer="ann", amount=1.5, note="x")],
    "field defaults and NULL": lambda: [Payment(order_id=1, customer="ann")],
    "text the database could mistake": lambda: [Payment(order_id=1, customer="a\1b '; {🦊} $1 %s ?", note="")],
    "extreme numbers": lambda: [Wide(id=-(2**63), number=1e308), Wide(id=2**63 - 1, number=5e-324)],
    "keys made by the database": lambda: [Ledger(text="a"), Ledger(text="b")],
    "keys given where the database could make them": lambda: [Ledger(id=40, text="a"), Ledger(id=7, text="b")],
    "nothing but a key made by the database": lambda: [OnlyId(), OnlyId(), OnlyId()],
    "every type by default": lambda: [Everything(id=1, token=TOKEN)],
    "every type": lambda: [
        Everything(
            id=1,
            flag=True,
            price=Decimal("12345.67"),
            at=datetime(2026, 11, 20, 1, 2, 3, 4, tzinfo=UTC),
            day=date(2026, 11, 20),
            colour=Colour.BLUE,
            token=TOKEN,
            raw=b"\x00\xff",
            document={"ä": [1, None]},
            renamed="here",
        )
    ],
    "every kind of default": lambda: [Defaults(id=1), Defaults(id=2)],
    "instead of defaults": lambda: [
        Defaults(id=1, field="a", factory=[3], scalar="b", called="c", sql="d", server="e"),
        Defaults(id=2, server="e"),
        Defaults(id=3, scalar="f"),
    ],
    "defaults on update play no part": lambda: [Touched(id=1)],
    "changed after it was made": lambda: [_changed(Payment(order_id=1, customer="ann"))],
}


def _changed(row: Payment) -> Payment:
    row.customer = "bob"
    row.note = "later"
    return row


@pytest.mark.parametrize("rows", MAKE_ROWS.values(), ids=MAKE_ROWS)
async def test_a_row_arrives_as_a_session_would_write_it(
    place: Place, store: Store, rows: Callable[[], list[SQLModel]]
) -> None:
    # given what SQLAlchemy's session makes of the rows in a database of its own
    table = type(rows()[0]).__tablename__
    all_of_it = f"SELECT * FROM {table} ORDER BY 1"  # noqa: S608
    oracle = place.beside()
    await written_by_a_session(oracle, rows())

    # when the store commits the same rows
    report = await store.commit([effects(row) for row in rows()])

    # then the table is the same
    assert report.rejected == {}
    assert place.look(all_of_it) == oracle.look(all_of_it)


async def written_by_a_session(place: Place, rows: list[SQLModel]) -> None:
    """Write the rows as most programs would."""
    store = await Store.open(place.url, "payments", TABLES)
    await store.close()
    url = make_url(place.url.replace("{subscription}", "payments"))
    engine = create_async_engine(url.set(drivername=DRIVERS[place.kind], query={}))
    async with AsyncSession(engine) as session:
        session.add_all(rows)
        await session.commit()
    await engine.dispose()


async def test_a_row_made_by_model_construct_is_as_good(store: Store, look: Look) -> None:
    # given rows made the quick way, past SQLModel's constructor
    row = Payment.model_construct(order_id=1, customer="ann")
    change = Payment.model_construct(order_id=1, note="n")

    # when they are inserted and upserted, then defaults and what was given are as ever
    report = await store.commit([effects(row), effects(Upsert(change))])
    assert report.rejected == {}
    assert look("SELECT * FROM payment ORDER BY 1") == [(1, "ann", 0.0, "n")]


async def test_an_upsert_sets_just_what_was_given(store: Store, look: Look) -> None:
    # given a row
    await store.commit([effects(Payment(order_id=1, customer="ann", amount=5.0, note="keep"))])

    # when parts of it are upserted, a None that was given among them
    await store.commit([effects(Upsert(some(Payment, order_id=1, amount=7.0)))])
    assert look("SELECT * FROM payment ORDER BY 1") == [(1, "ann", 7.0, "keep")]
    await store.commit([effects(Upsert(some(Payment, order_id=1, note=None)))])

    # then the rest has stayed
    assert look("SELECT * FROM payment ORDER BY 1") == [(1, "ann", 7.0, None)]


async def test_an_upsert_of_an_unknown_key_inserts_with_defaults(store: Store, look: Look) -> None:
    # when rows are upserted that are not there
    await store.commit([effects(Upsert(Defaults(id=1)), Upsert(Defaults(id=2, server=None, scalar="s")))])

    # then they are filled as an insert is, but for the None that was given
    assert look("SELECT * FROM defaults ORDER BY 1") == [
        (1, "field", "[1, 2]", "scalar", "called", "SQL", "server"),
        (2, "field", "[1, 2]", "s", "called", "SQL", None),
    ]


async def test_an_upsert_may_leave_out_what_a_new_row_would_need(store: Store, look: Look) -> None:
    # given a row with a column that can't be NULL
    await store.commit([effects(Account(id=1, amount=5))])

    # when it is upserted without that column, and so is one that is not there
    report = await store.commit(
        [effects(Upsert(some(Account, id=1, limit=9))), effects(Upsert(some(Account, id=2, limit=9)), event_id="new")]
    )

    # then the first is changed, and the second refused as an insert would be
    assert re.search("(?i)not.null constraint", str(report.rejected["new"]))
    assert look("SELECT * FROM account ORDER BY 1") == [(1, 5, 9)]


async def test_an_upsert_of_nothing_but_the_key_changes_nothing(store: Store, look: Look) -> None:
    await store.commit([effects(Payment(order_id=1, customer="ann"))])

    report = await store.commit([effects(Upsert(OnlyId(id=3)), Upsert(OnlyId(id=3)))])

    assert report.rejected == {}
    assert look("SELECT * FROM onlyid ORDER BY 1") == [(3,)]


async def test_of_two_upserts_in_a_batch_the_later_wins(store: Store, look: Look) -> None:
    # given upserts of one key, with the same columns, with others, and with the first again
    batch = [
        effects(Upsert(Payment(order_id=1, customer="a", amount=1.0))),
        effects(Upsert(Payment(order_id=1, customer="b", amount=2.0))),
        effects(Upsert(Payment(order_id=1, customer="b", note="n"))),
        effects(Upsert(Payment(order_id=2, customer="other", note="n"))),
        effects(Upsert(Payment(order_id=1, customer="c", amount=3.0))),
    ]

    # when they are committed together
    await store.commit(batch)

    # then each column has its last value
    assert look("SELECT * FROM payment ORDER BY 1") == [(1, "c", 3.0, "n"), (2, "other", 0.0, "n")]


async def test_columns_that_change_with_the_row_do_so_in_an_upsert(store: Store, look: Look) -> None:
    # given rows with columns that have an onupdate
    await store.commit([effects(Touched(id=1)), effects(Touched(id=2))])

    # when one is upserted, and the other with a value of its own for such a column
    await store.commit([effects(Upsert(Touched(id=1, name="a"))), effects(Upsert(Touched(id=2, state="mine")))])

    # then they have changed, but for what was given
    assert look("SELECT * FROM touched ORDER BY 1") == [(1, "a", 1, "worker", "changed"), (2, "", 1, "worker", "mine")]


async def test_an_expression_that_changes_a_column_may_have_values_of_its_own(store: Store, look: Look) -> None:
    # given rows with a column that grows by 10 whenever the row changes
    await store.commit([effects(Counted(id=n)) for n in range(20)])

    # when some are upserted, one of them twice
    report = await store.commit([effects(Upsert(Counted(id=n, name="a"))) for n in (*range(10), 3)])

    # then it has grown in those
    assert report.rejected == {}
    expected = [(n, "a", 20 if n == 3 else 10) if n < 10 else (n, "", 0) for n in range(20)]
    assert look("SELECT id, name, count FROM counted ORDER BY 1") == expected


async def test_statements_see_the_rows_before_them_and_not_those_after(store: Store, look: Look) -> None:
    # given events that insert, change all there is, insert again, and delete
    batch = [
        effects(Payment(order_id=1, customer="a", amount=1.0)),
        effects(update(Payment).values(amount=Payment.amount * 10)),
        effects(Payment(order_id=2, customer="b", amount=2.0)),
        effects(insert(Payment).values(order_id=3, customer="c", amount=3.0)),
        effects(delete(Payment).where(col(Payment.order_id) == 3).returning(col(Payment.customer))),
    ]

    # when they are committed together
    report = await store.commit(batch)

    # then it is as if they had come one by one
    assert report.rejected == {}
    assert look("SELECT order_id, amount FROM payment ORDER BY 1") == [(1, 10.0), (2, 2.0)]


async def test_tables_that_are_referred_to_are_written_first(store: Store, look: Look) -> None:
    # given rows in the wrong order, within an event and across events
    batch = [effects(Animal(id=1, zoo_id=1), Zoo(id=1)), effects(Animal(id=2, zoo_id=2)), effects(Zoo(id=2))]

    # when they are committed together
    report = await store.commit(batch)

    # then their foreign keys hold
    assert report.rejected == {}
    assert look("SELECT * FROM animal ORDER BY 1") == [(1, 1), (2, 2)]


async def test_inserts_and_upserts_of_one_table_keep_their_order(store: Store, look: Look) -> None:
    # given an insert whose row a later event upserts, and an upsert whose row a later event inserts
    batch = [
        effects(Payment(order_id=1, customer="inserted")),
        effects(Upsert(Payment(order_id=1, customer="upserted"))),
        effects(Upsert(Payment(order_id=2, customer="upserted"))),
        effects(Payment(order_id=2, customer="inserted"), event_id="late"),
    ]

    # when they are committed together
    report = await store.commit(batch)

    # then only the insert that came after the upsert is refused
    assert set(report.rejected) == {"late"}
    assert look("SELECT order_id, customer FROM payment ORDER BY 1") == [(1, "upserted"), (2, "upserted")]


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (Plain(), "Plain is not a table"),
        (Upsert(Plain()), "Plain is not a table"),
        ("text", "a str can't be written; return rows"),
        (Upsert(Ledger(text="x")), "Upsert(Ledger) needs the whole primary key: id"),
        (Zoo(id=1, animals=[Animal(id=1, zoo_id=1)]), "Zoo.animals holds related rows"),
        (Upsert(Zoo(id=1, animals=[Animal(id=1, zoo_id=1)])), "Zoo.animals holds related rows"),
    ],
)
async def test_what_cannot_be_written_is_refused_with_the_reason(store: Store, write: Any, reason: str) -> None:
    report = await store.commit([effects(write, event_id="bad"), effects(event_id="good")])

    assert report.processed == ["good"]
    assert reason in str(report.rejected["bad"])
