"""SQLModel rows → lists of values and the INSERT that takes them. In: rows. Out: `RowsStatement`s with values.

What can be known from a class is worked out once per class; a row then costs one pass over its values. The ORM's unit
of work is not used: it costs fifteen times as much. What a row means is the same as for `Session.add`: `None` in a
column that the database or a column default can fill is left to be filled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import Column, Insert, Table, bindparam, inspect
from sqlalchemy.orm import Mapper
from sqlmodel import SQLModel

from pipeline.errors import RowRejected

Values: TypeAlias = list[Any]
Key: TypeAlias = tuple[Any, ...]
# The insert() of SQLite's or PostgreSQL's dialect: both know ON CONFLICT, by the same names.
DialectInsert: TypeAlias = Callable[[Table], Any]


@dataclass(frozen=True, slots=True, eq=False)
class RowsStatement:
    """One INSERT for any number of rows; a row is the list of its values in the order of `keys`.

    `plain` is true when the values are all there is, so that the rows may be put into one VALUES list; otherwise
    SQLAlchemy has to run Python-side column defaults for each row.
    """

    table: Table
    keys: tuple[str, ...]
    statement: Insert
    plain: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class _Form:
    """How the rows of one class that give the same columns become values."""

    rows: RowsStatement
    attributes: tuple[str, ...]
    generators: tuple[Callable[[], Any], ...] = ()  # values of `onupdate`, which come after the attributes' values


@dataclass(frozen=True, slots=True, eq=False)
class _Shape:
    """What is known of a table class."""

    name: str
    table: Table
    columns: dict[str, Column[Any]]  # by attribute
    fillable: tuple[str, ...]  # attributes whose column is filled by a default when None
    key: tuple[str, ...]  # attributes of the primary key
    relationships: tuple[str, ...]
    inserts: dict[tuple[str, ...], _Form]
    upserts: dict[tuple[frozenset[str], tuple[str, ...]], _Form]


class Rows:
    """Turns rows into values, for one kind of database."""

    def __init__(self, insert: DialectInsert) -> None:
        self._insert = insert
        self._shapes: dict[type[SQLModel], _Shape] = {}

    def insert(self, row: SQLModel) -> tuple[RowsStatement, Values]:
        """The INSERT of this row. Raises: RowRejected when its class is no table, or it carries related rows."""
        shape = self._shapes.get(type(row)) or self._prepare(type(row))
        state = row.__dict__
        if shape.relationships:
            _refuse_related(shape, state)
        absent = tuple([name for name in shape.fillable if state.get(name) is None]) if shape.fillable else ()
        form = shape.inserts.get(absent) or self._insert_form(shape, absent)
        return form.rows, list(map(state.get, form.attributes))

    def upsert(self, row: SQLModel) -> tuple[RowsStatement, Values, Key]:
        """The upsert of this row, and its primary key. Raises: RowRejected as `insert`, and without the whole key."""
        shape = self._shapes.get(type(row)) or self._prepare(type(row))
        state = row.__dict__
        if shape.relationships:
            _refuse_related(shape, state)
        key = tuple(map(state.get, shape.key))
        if None in key:
            raise RowRejected(f"Upsert({shape.name}) needs the whole primary key: {', '.join(shape.key)}")
        given = frozenset(row.model_fields_set)
        absent = tuple([name for name in shape.fillable if name not in given and state.get(name) is None])
        form = shape.upserts.get((given, absent)) or self._upsert_form(shape, given, absent)
        return form.rows, [*map(state.get, form.attributes), *(make() for make in form.generators)], key

    def _prepare(self, row_class: type[SQLModel]) -> _Shape:
        shape = self._shapes[row_class] = _shape(row_class)
        return shape

    def _insert_form(self, shape: _Shape, absent: tuple[str, ...]) -> _Form:
        attributes = tuple(name for name in shape.columns if name not in absent)
        keys = tuple(shape.columns[name].key for name in attributes)
        rows = RowsStatement(shape.table, keys, self._insert(shape.table), plain=_plain(shape, attributes, absent))
        form = shape.inserts[absent] = _Form(rows, attributes)
        return form

    def _upsert_form(self, shape: _Shape, given: frozenset[str], absent: tuple[str, ...]) -> _Form:
        attributes = tuple(name for name in shape.columns if name not in absent)
        keys = [shape.columns[name].key for name in attributes]
        statement = self._insert(shape.table)
        changes = {
            shape.columns[name].key: statement.excluded[shape.columns[name].key]
            for name in attributes
            if name in given and name not in shape.key
        }
        generators: list[Callable[[], Any]] = []
        if changes:
            for name, column in shape.columns.items():
                if name not in given and column.onupdate is not None:
                    parameter = f"pipeline_onupdate_{column.key}"
                    changes[column.key], make = _on_update(column, parameter)
                    if make is not None:
                        keys.append(parameter)
                        generators.append(make)
        index = list(shape.table.primary_key.columns)
        if changes:
            statement = statement.on_conflict_do_update(index_elements=index, set_=changes)
        else:
            statement = statement.on_conflict_do_nothing(index_elements=index)
        plain = not generators and _plain(shape, attributes, absent)
        rows = RowsStatement(shape.table, tuple(keys), statement, plain)
        form = shape.upserts[given, absent] = _Form(rows, attributes, tuple(generators))
        return form


def _shape(row_class: type[SQLModel]) -> _Shape:
    mapper = inspect(row_class, raiseerr=False)
    if not isinstance(mapper, Mapper):
        raise RowRejected(f"{row_class.__name__} is not a table; declare it with table=True")
    table = mapper.local_table
    if len(mapper.tables) != 1 or not isinstance(table, Table):
        raise RowRejected(f"{row_class.__name__} is spread over several tables; return a row for each of them")
    columns = {
        prop.key: prop.columns[0]
        for prop in mapper.column_attrs
        if isinstance(prop.columns[0], Column) and prop.columns[0].table is table
    }
    fillable = tuple(
        name
        for name, column in columns.items()
        if column.default is not None or column.server_default is not None or column is table.autoincrement_column
    )
    key = tuple(name for column in table.primary_key for name, other in columns.items() if other is column)
    related = tuple(prop.key for prop in mapper.relationships)
    return _Shape(row_class.__name__, table, columns, fillable, key, related, {}, {})


def _plain(shape: _Shape, attributes: tuple[str, ...], absent: tuple[str, ...]) -> bool:
    return bool(attributes) and all(shape.columns[name].default is None for name in absent)


def _on_update(column: Column[Any], parameter: str) -> tuple[Any, Callable[[], Any] | None]:
    """What an upsert sets a column with `onupdate` to: an SQL expression, or a parameter and who makes its value."""
    default: Any = column.onupdate
    if default.is_clause_element:
        return default.arg, None
    value = bindparam(parameter, type_=column.type)
    if default.is_callable:
        # SQLAlchemy has wrapped the function so that it takes an execution context; there is none here.
        return value, lambda: default.arg(None)
    return value, lambda: default.arg


def _refuse_related(shape: _Shape, state: dict[str, Any]) -> None:
    for name in shape.relationships:
        if state.get(name):
            raise RowRejected(
                f"{shape.name}.{name} holds related rows, which are not followed;"
                " return them as rows of their own, with their keys set"
            )
