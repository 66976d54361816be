"""What is to be written and what came of it, as plain values. In: what handlers return. Out: reports for the worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sqlalchemy import UpdateBase
from sqlmodel import SQLModel

from pipeline.errors import RowRejected
from pipeline.event import new_id


@dataclass(frozen=True, slots=True)
class Upsert:
    """Insert the row; where its primary key exists already, set just the columns that were given to its constructor."""

    row: SQLModel


# One thing a handler wants written: a row of a table class (INSERT), an Upsert, or an insert(), update() or delete()
# statement of SQLAlchemy, run as it is.
Write: TypeAlias = SQLModel | Upsert | UpdateBase


def is_table(value: Any) -> bool:
    """Whether it is a table class."""
    return isinstance(value, type) and issubclass(value, SQLModel) and hasattr(value, "__table__")


def is_write(value: Any) -> bool:
    """Whether a handler's value is to be written as it is (a `Write`)."""
    return isinstance(value, Upsert | UpdateBase) or (isinstance(value, SQLModel) and hasattr(value, "__table__"))


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A follow-up event as it will travel. `properties` are opaque bytes for whoever publishes it.

    `key` is its row in the outbox, unique, and sorts by time (as `event.new_id`): whoever wrote the row can publish the
    event from memory and take out just that row.
    """

    exchange: str
    routing_key: str
    message_id: str
    body: bytes
    properties: bytes
    key: str = field(default_factory=new_id)


@dataclass(frozen=True, slots=True)
class Effects:
    """All that one processed event writes: its rows, a JSON `result` for the generic table, follow-up events.

    `event_id` is what makes it the same event in the inbox; in a forced replay that is more than the event's own id,
    under which its result stands all the same (`result_id`, "" where they are one).
    """

    event_id: str
    event_type: str
    writes: Sequence[Write] = ()
    result: bytes | None = None
    outgoing: Sequence[Outgoing] = ()
    result_id: str = ""


@dataclass(frozen=True, slots=True)
class CommitReport:
    """How a batch ended: every event id of it is in at least one of these.

    `processed`, in the order of the batch, are committed now. The effects of `duplicates` were committed before,
    by this process or another, or belong to an event whose id came twice in this batch: the first entry decides,
    so an id given twice is in `duplicates` and where its first entry ended. `rejected` left nothing in the database.
    """

    processed: list[str]
    duplicates: set[str]
    rejected: dict[str, RowRejected]


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of one subscription: events processed, generic results, follow-up events still to be published."""

    inbox: int
    results: int
    outbox: int
