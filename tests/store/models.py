"""Tables that stand for a user's: plain, with defaults of every kind, with keys between them, with constraints."""

import enum
import os
import signal
import threading
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Integer,
    String,
    func,
    literal_column,
    text,
)
from sqlalchemy.orm import registry
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, Relationship, SQLModel


class Base(SQLModel, registry=registry()):
    """Keeps these tables apart from those of other tests."""


class Payment(Base, table=True):
    order_id: int = Field(primary_key=True)
    customer: str
    amount: float = 0.0
    note: str | None = None


class Ledger(Base, table=True):
    """Its key is made by the database."""

    id: int | None = Field(default=None, primary_key=True)
    text: str = Field(unique=True)


class Wide(Base, table=True):
    """Its key takes 64 bits."""

    id: int = Field(sa_column=Column(BigInteger, primary_key=True))
    number: float = 0.0


class OnlyId(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Everything(Base, table=True):
    """A column of every type a user may reach for."""

    id: int = Field(primary_key=True)
    flag: bool = False
    price: Decimal = Field(default=Decimal("1.50"), max_digits=12, decimal_places=2)
    at: datetime | None = None
    day: date | None = None
    colour: Colour = Colour.RED
    token: UUID = Field(default_factory=uuid4)
    raw: bytes = b""
    document: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON))
    renamed: str = Field(default="", sa_column=Column("other name", String))


class Defaults(Base, table=True):
    """Filled by a field default, a default factory, a column default, a callable one, an SQL one, and the server."""

    id: int = Field(primary_key=True)
    field: str = "field"
    factory: list[int] = Field(default_factory=lambda: [1, 2], sa_column=Column(JSON))
    scalar: str | None = Field(default=None, sa_column=Column(String, default="scalar"))
    called: str | None = Field(default=None, sa_column=Column(String, default=lambda: "called"))
    sql: str | None = Field(default=None, sa_column=Column(String, default=func.upper("sql")))
    server: str | None = Field(default=None, sa_column=Column(String, server_default=text("'server'")))


class Touched(Base, table=True):
    """Columns that change by themselves when the row does."""

    id: int = Field(primary_key=True)
    name: str = ""
    version: int = Field(default=0, sa_column=Column(Integer, default=0, onupdate=text("touched.version + 1")))
    touched_by: str = Field(default="nobody", sa_column=Column(String, onupdate=lambda: "worker"))
    state: str = Field(default="new", sa_column=Column(String, onupdate="changed"))


class Counted(Base, table=True):
    """Its expression has a value of its own."""

    id: int = Field(primary_key=True)
    name: str = ""
    count: int = Field(default=0, sa_column=Column(Integer, onupdate=literal_column("counted.count", Integer) + 10))


class Zoo(Base, table=True):
    """Referred to by Animal, whose name sorts first."""

    id: int = Field(primary_key=True)
    animals: list["Animal"] = Relationship(back_populates="zoo")


class Animal(Base, table=True):
    id: int = Field(primary_key=True)
    zoo_id: int = Field(foreign_key="zoo.id")
    zoo: Zoo | None = Relationship(back_populates="animals")


class Deferred(Base, table=True):
    """Its foreign key is checked at COMMIT."""

    id: int = Field(primary_key=True)
    zoo_id: int = Field(
        sa_column=Column(Integer, ForeignKey("zoo.id", deferrable=True, initially="DEFERRED"), nullable=False)
    )


class Account(Base, table=True):
    """Refuses: an amount that is missing or negative."""

    __table_args__ = (CheckConstraint("amount >= 0"),)
    id: int = Field(primary_key=True)
    amount: int = Field(nullable=False)
    limit: int | None = None


class RollsBack(Base, table=True):
    """A conflict makes SQLite roll back the whole transaction by itself."""

    id: int = Field(sa_column=Column(Integer, primary_key=True, sqlite_on_conflict_primary_key="ROLLBACK"))


class Deadly(TypeDecorator[str]):
    """Kills the process, as a power cut would, when it is given "die" to write."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        if value == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return value


class Mortal(Base, table=True):
    id: int = Field(primary_key=True)
    word: str = Field(sa_column=Column(Deadly))


class Gate(TypeDecorator[str]):
    """Holds a transaction in its middle: `reached` when it is there, until `opened`."""

    impl = String
    cache_ok = True
    reached = threading.Event()
    opened = threading.Event()

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        if dialect.name == "sqlite":  # on a thread of its own; with PostgreSQL a lock does it, see `places`
            self.reached.set()
            assert self.opened.wait(10)
        return value


class Gated(Base, table=True):
    id: int = Field(primary_key=True)
    word: str = Field(sa_column=Column(Gate))


class Missing(Base, table=True):
    """Never made in any database."""

    id: int = Field(primary_key=True)


class Plain(SQLModel):
    """Not a table."""

    id: int = 1


TABLES: list[type[SQLModel]] = [
    *(Payment, Ledger, Wide, OnlyId, Everything, Defaults, Touched, Counted, Zoo, Animal, Deferred, Account),
    *(RollsBack, Mortal, Gated),
]
