"""Values in PostgreSQL: those of every type arrive, and those that are refused are shown to nobody."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    ARRAY,
    CHAR,
    Column,
    DateTime,
    Enum,
    Float,
    Integer,
    Interval,
    Numeric,
    String,
    Text,
    Time,
    Uuid,
    cast,
    insert,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import INET, JSONB
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, col

from pipeline.store import Store, Upsert
from tests.store.conftest import Look, effects
from tests.store.models import TABLES, Account, Colour, Payment
from tests.store.places import PostgresDatabase

WRONG: Any = object()
NOTHING: Any = None


class Base(SQLModel, registry=registry()):
    """Keeps these tables from being made elsewhere."""


class Odd(Base, table=True):
    """Types of PostgreSQL's own, and types with a limit."""

    id: int = Field(primary_key=True)
    words: list[str] = Field(default_factory=list, sa_column=Column(ARRAY(Text)))
    address: Any = Field(default=None, sa_column=Column(INET))
    span: timedelta | None = Field(default=None, sa_column=Column(Interval))


class Limited(Base, table=True):
    """All of its types travel in arrays."""

    id: int = Field(primary_key=True)
    short: str = Field(default="", sa_column=Column(String(5)))
    fixed: str = Field(default="", sa_column=Column(CHAR(5)))
    price: Decimal | None = Field(default=None, sa_column=Column(Numeric(6, 2)))
    small: float | None = Field(default=None, sa_column=Column(Float(24)))
    document: Any = Field(default=None, sa_column=Column(JSONB))
    naive: datetime | None = Field(default=None, sa_column=Column(DateTime(timezone=False)))
    aware: datetime | None = Field(default=None, sa_column=Column(DateTime(timezone=True)))
    day: date | None = None
    clock: time | None = Field(default=None, sa_column=Column(Time))
    token: UUID | None = None
    hexadecimal: UUID | None = Field(default=None, sa_column=Column(Uuid(native_uuid=False)))
    colour: Colour = Field(default=Colour.RED, sa_column=Column(Enum(Colour, native_enum=False)))
    raw: bytes = b""
    flag: bool | None = None


MAKE = {
    "in arrays": lambda number: Limited(
        id=number,
        short="ä" * 5,
        fixed="abc",
        price=Decimal("9999.99"),
        small=0.5,
        document={"a": [None, "🦊"]},
        naive=datetime(2026, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001 - that is the point
        aware=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        day=date(2026, 1, 2),
        clock=time(1, 2, 3),
        token=UUID(int=7),
        hexadecimal=UUID(int=8),
        colour=Colour.BLUE,
        raw=b"\x00\xff",
        flag=True,
    ),
    "empty": lambda number: Limited(id=number),
    "not in arrays": lambda number: Odd(
        id=number, words=["a", "b"], address=IPv4Address("10.0.0.1"), span=timedelta(days=1, seconds=2)
    ),
}


@pytest.fixture
def place(ready_place: PostgresDatabase) -> PostgresDatabase:
    """Only PostgreSQL."""
    return ready_place


@pytest.fixture
async def store(place: PostgresDatabase) -> AsyncIterator[Store]:
    opened = await Store.open(place.url, "payments", [*TABLES, Odd, Limited])
    yield opened
    await opened.close()


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
async def test_values_of_every_type_arrive_as_a_session_would_write_them(
    store: Store, place: PostgresDatabase, look: Look, make: Any
) -> None:
    # given a row written by SQLAlchemy's session
    table = make(1).__tablename__
    engine = create_async_engine(make_url(place.url).set(drivername="postgresql+asyncpg", query={}))
    async with AsyncSession(engine) as session:
        session.add(make(1))
        await session.commit()
    await engine.dispose()

    # when the store writes the same, as a row and as an upsert
    report = await store.commit([effects(make(2), Upsert(make(3)))])

    # then the rows are the same
    assert report.rejected == {}
    first, second, third = look(f"SELECT * FROM {table} ORDER BY id")  # noqa: S608
    assert first[1:] == second[1:] == third[1:]


TOO_MUCH = {
    "text": (Limited(id=1, short="secret"), "value too long for type character varying(5) [22001]"),
    "text of a fixed length": (Limited(id=1, fixed="secret"), "value too long for type character(5) [22001]"),
    "number": (Limited(id=1, price=Decimal(123456789)), "numeric field overflow [22003]"),
    "a NUL": (Payment(order_id=1, customer="secret\0"), "text holds a NUL character, which PostgreSQL can't keep"),
    "a NUL in a document": (Limited(id=1, document="secret\0"), "unsupported Unicode escape sequence [22P05]"),
    "a wrong type": (
        Payment(order_id=1, customer="secret", amount=WRONG),
        "payment.amount can't take such a value: parameter $3 is not of the type of its column",
    ),
    "a wrong text": (Limited.model_construct(id="secret"), "limited.id can't take such a value: parameter $1 is not"),
    "a time without its zone": (
        Limited.model_construct(id=1, naive=datetime(2026, 1, 1, tzinfo=UTC)),
        "limited.naive can't take such a value: parameter $7 is a time with a time zone for a column without",
    ),
    "a key that is taken": (Payment(order_id=0, customer="secret"), 'unique constraint "payment_pkey" [23505]'),
    "NULL": (Payment(order_id=1, customer=NOTHING), 'null value in column "customer" of relation "payment"'),
    "a check": (Account(id=424242, amount=-1), 'violates check constraint "account_amount_check"'),
    "a conversion": (
        insert(Payment).values(order_id=cast("secret", Integer), customer="x"),
        "is not of the type of its column",
    ),
    "a conversion by the server": (
        insert(Payment).values(order_id=text("'secret\" '::text::int"), customer="x"),
        "invalid input syntax for type integer [22P02]",
    ),
    "wrong SQL": (insert(Payment).values(order_id=text("'secret' 'secret'"), customer="x"), "syntax error at or near"),
    "what a trigger says": (
        Payment(order_id=1, customer="refuse: secret"),
        "a function of the database raised an error [P0001]; its words are in the server's log",
    ),
}


@pytest.fixture
def trigger(look: Look) -> None:
    """The table of payments raises an error that shows the row."""
    look(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.customer LIKE 'refuse%' THEN RAISE EXCEPTION 'not this: %', NEW; END IF; RETURN NEW; END $$"
    )
    look("CREATE TRIGGER refuse BEFORE INSERT ON payment FOR EACH ROW EXECUTE FUNCTION refuse()")


@pytest.mark.usefixtures("trigger")
@pytest.mark.parametrize(("write", "reason"), TOO_MUCH.values(), ids=TOO_MUCH)
async def test_a_refusal_says_what_is_wrong_and_no_value(store: Store, write: Any, reason: str) -> None:
    # given a row that is there, and one with a secret that will be refused
    await store.commit([effects(Payment(order_id=0, customer="x"))])

    # when it is committed
    report = await store.commit([effects(write, event_id="bad"), effects(event_id="good")])

    # then the reason helps, and nowhere in the error or in those that led to it is the secret
    assert report.processed == ["good"]
    error = report.rejected["bad"]
    assert reason in str(error)
    told = "".join(traceback.format_exception(error))
    assert "secret" not in told
    assert "424242" not in told


async def test_an_error_of_a_query_shows_no_value(store: Store) -> None:
    wrong_type: Any = "secret"
    for statement in (
        select(Payment).where(col(Payment.order_id) == wrong_type),
        select(text("'secret'::int")),
        select(cast(text("'secret'::text"), Integer)),
    ):
        with pytest.raises(DBAPIError) as caught:
            await store.query(statement)
        told = "".join(traceback.format_exception(caught.value)).replace("'secret'::", "")  # which is the statement
        assert "secret" not in told
