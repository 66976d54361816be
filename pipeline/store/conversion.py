"""Python values → what a driver takes, by the types of their columns. In: values of one column. Out: them, converted.

SQLAlchemy does this for each value of each row, when it runs a statement; here it is done a column at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Dialect

from pipeline.errors import RowRejected
from pipeline.store.rows import RowsStatement


@dataclass(frozen=True, slots=True)
class Converter:
    """Converts the values of one parameter; `place` is its place among the statement's parameters."""

    place: int
    column: Column[Any]
    convert: Callable[[Any], Any]

    def __call__(self, values: Sequence[Any]) -> list[Any]:
        """The values, converted. Raises: RowRejected when one can't be."""
        try:
            return list(map(self.convert, values))
        except Exception as error:  # a user's own type may fail in any way
            reason = f"{self.column} can't take such a value ({type(error).__name__}: {error})"
            raise RowRejected(reason) from error


def converters(statement: RowsStatement, dialect: Dialect) -> list[Converter]:
    """Converters for those parameters that need one."""
    found = []
    for place, column in enumerate(statement.parameters.values()):
        convert = column.type.dialect_impl(dialect).bind_processor(dialect)
        if convert is not None:
            found.append(Converter(place, column, convert))
    return found
