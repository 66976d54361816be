"""Makes sure the tables are there and fit their classes. In: a connection, table classes. Out: tables or an error.

A table that lacks a column would send every event, one by one, to the dead-letter queue; it is found here instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, Table, delete, false
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import SQLModel

from pipeline.errors import ConfigurationError
from pipeline.store.producer_tables import OUTGOING, PRODUCER_METADATA
from pipeline.store.revisions import PRODUCER, WORKER, check_columns, make_tables
from pipeline.store.tables import INBOX, METADATA


def tables_of(classes: Iterable[type[SQLModel]]) -> list[Table]:
    """The tables of these classes and those their foreign keys refer to.

    Raises: ConfigurationError for a class that is no table, or refers to one that is not defined.
    """
    found: dict[Table, None] = {}
    for row_class in classes:
        table = getattr(row_class, "__table__", None)
        if not isinstance(table, Table):
            raise ConfigurationError(f"{row_class.__name__} is not a table; declare it with table=True")
        try:
            _with_referred(table, found)
        except SQLAlchemyError as error:
            raise ConfigurationError(f"{row_class.__name__} can't be used as a table: {error}") from error
    return list(found)


def create_missing(connection: Connection, tables: Sequence[Table], place: str) -> None:
    """Create the library's tables and these, where they are missing; safe from several processes at once.

    Raises: ConfigurationError when a table is there already and lacks columns, or the library's are of another
        revision. Database errors pass through.
    """
    with connection.begin():
        make_tables(connection, WORKER, place)
        connection.execute(
            delete(INBOX).where(false())
        )  # that it may be written is found out now, not by the first batch
        for metadata in dict.fromkeys(table.metadata for table in tables):  # which sorts its own by foreign keys
            metadata.create_all(connection, tables=[table for table in tables if table.metadata is metadata])
        check_columns(connection, [*METADATA.sorted_tables, *tables], place)


def create_producer(connection: Connection, place: str) -> None:
    """Create the producer's tables, as `create_missing` the workers'."""
    with connection.begin():
        make_tables(connection, PRODUCER, place)
        connection.execute(delete(OUTGOING).where(false()))
        check_columns(connection, PRODUCER_METADATA.sorted_tables, place)


def _with_referred(table: Table, found: dict[Table, None]) -> None:
    if table in found:
        return
    found[table] = None
    for key in table.foreign_keys:
        _with_referred(key.column.table, found)
