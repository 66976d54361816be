"""Groups a batch's rows so that each table takes one statement, and the outcome is as if they came one by one.

In: writes, in the order of their events. Out: calls that write them. Rows that commute are gathered; whatever would see
a difference (a statement, an insert after upserts of the same table, the same key upserted with other columns) first
has everything written that is gathered so far. Within one gathering, tables that others refer to come first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from sqlalchemy import Table, UpdateBase
from sqlalchemy.schema import sort_tables_and_constraints
from sqlmodel import SQLModel

from pipeline.errors import RowRejected
from pipeline.store.rows import Key, Rows, RowsStatement, Values
from pipeline.store.writes import Upsert, Write


class InOrder:
    """Takes writes one by one; calls `write_rows` and `write_statement` as seldom as their order allows."""

    def __init__(
        self,
        rows: Rows,
        write_rows: Callable[[RowsStatement, list[Values]], None],
        write_statement: Callable[[UpdateBase], None],
    ) -> None:
        self._rows = rows
        self._write_rows = write_rows
        self._write_statement = write_statement
        self._gathered: dict[RowsStatement, list[Values]] = {}
        self._upserted: dict[Table, dict[Key, RowsStatement]] = {}

    def add(self, write: Write) -> None:
        """Gather or write one write. Raises: RowRejected when it is of no kind that can be written."""
        match write:
            case SQLModel():
                statement, values = self._rows.insert(write)
                if statement.table in self._upserted:
                    self.flush()
                self._gather(statement, values)
            case Upsert(row):
                statement, values, key = self._rows.upsert(row)
                keys = self._upserted.setdefault(statement.table, {})
                if keys.get(key, statement) is not statement:
                    self.flush()
                    keys = self._upserted.setdefault(statement.table, {})
                keys[key] = statement
                self._gather(statement, values)
            case UpdateBase():
                self.flush()
                self._write_statement(write)
            case _:
                raise RowRejected(
                    f"a {type(write).__name__} can't be written; return rows of SQLModel tables, Upsert(row),"
                    " or insert(), update() and delete() statements"
                )

    def flush(self) -> None:
        """Write all that is gathered."""
        gathered, self._gathered = self._gathered, {}
        self._upserted = {}
        tables = {statement.table for statement in gathered}
        if len(tables) < 2:
            order = list(gathered)
        else:
            place = _places(frozenset(tables))
            order = sorted(gathered, key=lambda statement: place[statement.table])
        for statement in order:
            self._write_rows(statement, gathered[statement])

    def _gather(self, statement: RowsStatement, values: Values) -> None:
        if (rows := self._gathered.get(statement)) is None:
            rows = self._gathered[statement] = []
        rows.append(values)


@cache
def _places(tables: frozenset[Table]) -> dict[Table, int]:
    """Where each table comes so that those referred to by foreign keys come first; tables in a circle come last."""
    by_name = sorted(tables, key=lambda table: table.fullname)
    every: list[tuple[Table | None, Any]] = sort_tables_and_constraints(by_name)  # type: ignore[no-untyped-call]
    return {table: place for place, (table, _) in enumerate(every) if table is not None}
