"""Rows → PostgreSQL in one statement, each column as one array. In: a `RowsStatement`, rows. Out: rows in the table.

`INSERT … SELECT … FROM unnest($1::bigint[], $2::text[], …)` is one short text whatever the number of rows, so it stays
prepared; it measured best of what can take ON CONFLICT. What an array can't carry is written row by row, in one go all
the same, by the driver's executemany.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, TypeAlias

from sqlalchemy import Connection, Dialect, Table, UniqueConstraint, bindparam, column, func, select, types
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.visitors import replacement_traverse

from pipeline.errors import RowRejected
from pipeline.store.conversion import converters
from pipeline.store.postgres_faults import argument, driver_error, without_values
from pipeline.store.rows import RowsStatement, Values

SHORTEST_RUN = 8  # rows on average; below that, row by row is quicker

Type: TypeAlias = types.TypeEngine[Any]

# Sent as they are. A length or a precision must not be said: the cast would cut quietly what the column refuses.
AS_THEY_ARE = (
    *(types.SmallInteger, types.Integer, types.BigInteger, types.Boolean, types.Date, types.Time, types.DateTime),
    *(types.JSON, types.Float),
)
LARGEST = 64 * 1024 * 1024  # characters and bytes in one statement; PostgreSQL takes less than 1 GB in any one message
SIZED = {str, bytes, type(None)}
ONE_VALUE = (str, bytes, bytearray, memoryview)  # though they can be iterated over


class RowsWriter:
    """Writes rows by one statement. Prepared once, for all connections of a dialect."""

    def __init__(self, statement: RowsStatement, dialect: Dialect) -> None:
        self._statement = statement
        self._columns = list(statement.parameters.values())
        self._converters = converters(statement, dialect)
        self._text, self._arguments = "", list[int]()
        elements = [_element(each.type, dialect) for each in self._columns]
        if statement.plain and None not in elements:
            self._text, self._arguments = _by_arrays(statement, elements, dialect)
        places = list(statement.parameters)
        self._key = itemgetter(*map(places.index, statement.key)) if statement.key else None
        self._sorted = self._key is not None and not _has_other_keys(statement.table)

    def write(self, connection: Connection, rows: Sequence[Values]) -> None:
        """Write the rows, in an order that makes no difference to one by one.

        Raises: RowRejected when a value can't be sent, the database's own errors.
        """
        if not self._text:
            self._one_by_one(connection, rows)
        elif self._key is None:
            self._at_once(connection, rows)
        else:
            # Each row of a statement must have another key: PostgreSQL does not update a row twice in one.
            runs = list(_without_repeats(rows, self._key))
            if len(runs) > 1 and len(rows) < SHORTEST_RUN * len(runs):
                self._one_by_one(connection, rows)
                return
            for run in runs:
                # Transactions that lock the same rows in the same order can't lock each other out.
                self._at_once(connection, _in_order(run, self._key) if self._sorted else run)

    def _at_once(self, connection: Connection, rows: Sequence[Values]) -> None:
        arrays: list[Sequence[Any]] = list(zip(*rows, strict=True))
        for convert in self._converters:
            arrays[convert.place] = convert(arrays[convert.place])
        size = 0
        for place, values in enumerate(arrays):
            kinds = set(map(type, values))
            if any(map(_is_several, kinds)):  # an array within an array would become rows
                raise RowRejected(f"{self._columns[place]} can't take several values")
            if kinds <= SIZED:
                size += sum(map(len, filter(None, values)))
        if size > LARGEST and len(rows) > 1:
            middle = len(rows) // 2
            self._at_once(connection, rows[:middle])
            self._at_once(connection, rows[middle:])
            return
        try:
            connection.exec_driver_sql(self._text, tuple([arrays[place] for place in self._arguments]))
        except DBAPIError as error:
            number = argument(error)
            if number is None:
                raise
            place = self._arguments[number - 1]
            reason = f"{self._columns[place]} can't take such a value: {without_values(driver_error(error))}"
            raise RowRejected(reason) from error

    def _one_by_one(self, connection: Connection, rows: Sequence[Values]) -> None:
        lent = {key: value for key, value in self._statement.columns.items() if value is not None}
        statement = self._statement.statement.values(lent) if lent else self._statement.statement
        connection.execute(statement, [dict(zip(self._statement.parameters, row, strict=True)) for row in rows])


def _by_arrays(statement: RowsStatement, elements: Sequence[Any], dialect: Dialect) -> tuple[str, list[int]]:
    """The text, and for each of its arguments the place of its array."""
    names = list(statement.parameters)
    arrays = (bindparam(name, type_=ARRAY(element)) for name, element in zip(names, elements, strict=True))
    given = func.unnest(*arrays).table_valued(*map(column, names)).render_derived(name="pipeline_given")

    def of_the_row(element: Any, **_: Any) -> Any:
        return given.c[element.key] if isinstance(element, BindParameter) and element.key in given.c else None

    values = [
        given.c[key] if expression is None else replacement_traverse(expression, {}, of_the_row)
        for key, expression in statement.columns.items()
    ]
    insert = statement.statement.from_select(
        list(statement.columns), select(*values).select_from(given), include_defaults=False
    )
    compiled: Any = insert.compile(dialect=dialect)
    return str(compiled), list(map(names.index, compiled.positiontup))


def _element(type_: Type, dialect: Dialect) -> Type | None:
    """The type whose arrays carry such values, None when there is none."""
    if type_.bind_expression(bindparam("value", type_=type_)) is not None:
        return None  # an SQL function takes the value
    impl = type_.dialect_impl(dialect)
    while isinstance(impl, types.TypeDecorator):
        impl = impl.load_dialect_impl(dialect).dialect_impl(dialect)
    match impl:
        case types.Enum() if impl.native_enum:
            return impl
        case types.Uuid():
            return impl if impl.native_uuid else types.Text()
        case types.String():
            return types.Text()
        case types.LargeBinary():
            return types.LargeBinary()
        case types.Numeric() if not isinstance(impl, types.Float):
            return types.Numeric()
    return impl if isinstance(impl, AS_THEY_ARE) else None


def _without_repeats(rows: Iterable[Values], key: Callable[[Values], Any]) -> Iterator[list[Values]]:
    """The rows in pieces, in order, each as long as no key comes a second time."""
    run: list[Values] = []
    keys: set[Any] = set()
    for row in rows:
        value = key(row)
        if value in keys:
            yield run
            run, keys = [], set()
        keys.add(value)
        run.append(row)
    yield run


def _in_order(rows: list[Values], key: Callable[[Values], Any]) -> list[Values]:
    try:
        return sorted(rows, key=key)
    except TypeError:
        return rows  # keys without an order


def _has_other_keys(table: Table) -> bool:
    """Whether rows with different keys can still be in each other's way, so that their order makes a difference."""
    unique = any(isinstance(each, UniqueConstraint) for each in table.constraints)
    return unique or any(index.unique for index in table.indexes)


def _is_several(kind: type) -> bool:
    return hasattr(kind, "__iter__") and not issubclass(kind, ONE_VALUE)
