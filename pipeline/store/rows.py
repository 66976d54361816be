"""SQLModel rows → lists of values and the INSERT that takes them. In: rows. Out: `RowsStatement`s with values.

What can be known from a class is worked out once per class; a row then costs one pass over its values. The ORM's unit
of work is not used: it costs fifteen times as much. What a row means is the same as for `Session.add`: `None` in a
column that the database or a column default can fill is left to be filled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from sqlalchemy import Column, ColumnElement, Insert, Table, bindparam, inspect, select
from sqlalchemy.orm import Mapper
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.visitors import iterate
from sqlmodel import SQLModel

from pipeline.errors import RowRejected

Values: TypeAlias = list[Any]
Key: TypeAlias = tuple[Any, ...]
# The insert() of SQLite's or PostgreSQL's dialect: both know ON CONFLICT, by the same names.
DialectInsert: TypeAlias = Callable[[Table], Any]


@dataclass(frozen=True, slots=True, eq=False)
class RowsStatement:
    """One INSERT for any number of rows; a row is the list of its values in the order of `parameters`.

    `parameters` have a name each, and the column whose type they have. `columns` are those filled, in the order of the
    table, each with the SQL that its value comes from, or None when that is simply a parameter. `plain` is true when
    this is all there is, so that the rows may be put into one VALUES list; otherwise SQLAlchemy has to run Python-side
    column defaults for each row.
    `key` are the parameters by which a row may change another row of the same statement; none if that can't be.
    """

    table: Table
    statement: Insert
    parameters: Mapping[str, Column[Any]]
    columns: Mapping[str, ColumnElement[Any] | None]
    plain: bool = True
    key: tuple[str, ...] = ()


def rows_statement(table: Table, statement: Insert, columns: Iterable[str], plain: bool = True) -> RowsStatement:
    """The statement with just these columns of the table, each a parameter."""
    names = [column.key for column in table.columns if column.key in set(columns)]
    return RowsStatement(table, statement, {name: table.columns[name] for name in names}, dict.fromkeys(names), plain)


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
    required: tuple[str, ...]  # attributes whose column can't be NULL and is filled by nobody else
    key: tuple[str, ...]  # attributes of the primary key
    relationships: tuple[str, ...]
    inserts: dict[tuple[str, ...], _Form]
    upserts: dict[tuple[frozenset[str], tuple[str, ...], tuple[str, ...]], _Form]


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
        missing = tuple([name for name in shape.required if name not in given and state.get(name) is None])
        form = shape.upserts.get((given, absent, missing)) or self._upsert_form(shape, given, absent, missing)
        return form.rows, [*map(state.get, form.attributes), *(make() for make in form.generators)], key

    def _prepare(self, row_class: type[SQLModel]) -> _Shape:
        shape = self._shapes[row_class] = _shape(row_class)
        return shape

    def _insert_form(self, shape: _Shape, absent: tuple[str, ...]) -> _Form:
        attributes = tuple(name for name in shape.columns if name not in absent)
        keys = [shape.columns[name].key for name in attributes]
        rows = rows_statement(shape.table, self._insert(shape.table), keys, _plain(shape, absent))
        form = shape.inserts[absent] = _Form(rows, attributes)
        return form

    def _upsert_form(
        self, shape: _Shape, given: frozenset[str], absent: tuple[str, ...], missing: tuple[str, ...]
    ) -> _Form:
        statement = self._insert(shape.table)
        columns: dict[str, ColumnElement[Any] | None] = {}
        parameters: dict[str, Column[Any]] = {}
        attributes: list[str] = []
        changes: dict[str, Any] = {}
        for name, column in shape.columns.items():
            if name in missing:
                # NOT NULL is checked before the conflict is noticed, so the row that is there lends its value. If there
                # is none, the new one gets NULL and is refused, as it should be.
                columns[column.key], keys = _existing(shape, column)
                parameters.update(keys)
                attributes += shape.key
            elif name not in absent:
                columns[column.key] = None
                parameters[column.key] = column
                attributes.append(name)
                if name in given and name not in shape.key:
                    changes[column.key] = statement.excluded[column.key]
        generators = _on_update(shape, given, changes, parameters) if changes else []
        index = list(shape.table.primary_key.columns)
        if changes:
            statement = statement.on_conflict_do_update(index_elements=index, set_=changes)
        else:
            statement = statement.on_conflict_do_nothing(index_elements=index)
        plain = not any(map(_has_values, changes.values())) and _plain(shape, absent)
        key = tuple(shape.columns[name].key for name in shape.key) if changes else ()
        rows = RowsStatement(shape.table, statement, parameters, columns, plain, key)
        form = shape.upserts[given, absent, missing] = _Form(rows, tuple(attributes), tuple(generators))
        return form


def _shape(row_class: type[SQLModel]) -> _Shape:
    mapper = inspect(row_class, raiseerr=False)
    if not isinstance(mapper, Mapper):
        raise RowRejected(f"{row_class.__name__} is not a table; declare it with table=True")
    table = mapper.local_table
    if len(mapper.tables) != 1 or not isinstance(table, Table):
        raise RowRejected(f"{row_class.__name__} is spread over several tables; return a row for each of them")
    attributes = {prop.columns[0]: prop.key for prop in mapper.column_attrs}
    columns = {attributes[column]: column for column in table.columns if column in attributes}
    key = tuple(attributes[column] for column in table.primary_key)
    fillable = tuple(
        name
        for name, column in columns.items()
        if column.default is not None or column.server_default is not None or column is table.autoincrement_column
    )
    required = tuple(
        name for name, column in columns.items() if not column.nullable and name not in key and name not in fillable
    )
    related = tuple(prop.key for prop in mapper.relationships)
    return _Shape(row_class.__name__, table, columns, fillable, required, key, related, {}, {})


def _plain(shape: _Shape, absent: tuple[str, ...]) -> bool:
    return len(absent) < len(shape.columns) and all(shape.columns[name].default is None for name in absent)


def _has_values(change: ColumnElement[Any]) -> bool:
    """Whether an SQL expression comes with values of its own, which have no place among a row's."""
    return any(isinstance(part, BindParameter) for part in iterate(change))


def _existing(shape: _Shape, column: Column[Any]) -> tuple[ColumnElement[Any], dict[str, Column[Any]]]:
    """The column's value in the row that has the key, and the parameters for the key."""
    keys = {f"pipeline_{column.key}_of_{shape.columns[name].key}": shape.columns[name] for name in shape.key}
    same = (key == bindparam(name, type_=key.type) for name, key in keys.items())
    return select(column).where(*same).scalar_subquery(), keys


def _on_update(
    shape: _Shape, given: frozenset[str], changes: dict[str, Any], parameters: dict[str, Column[Any]]
) -> list[Callable[[], Any]]:
    """Adds what columns with `onupdate` change to: an SQL expression, or a parameter for a value that is made here."""
    generators: list[Callable[[], Any]] = []
    for name, column in shape.columns.items():
        default: Any = column.onupdate
        if name in given or default is None:
            continue
        if default.is_clause_element:
            changes[column.key] = default.arg
            continue
        parameter = f"pipeline_onupdate_{column.key}"
        changes[column.key] = bindparam(parameter, type_=column.type)
        parameters[parameter] = column
        # SQLAlchemy has wrapped a function so that it takes an execution context; there is none here.
        generators.append(partial(default.arg, None) if default.is_callable else partial(_same, default.arg))
    return generators


def _same(value: Any) -> Any:
    return value


def _refuse_related(shape: _Shape, state: dict[str, Any]) -> None:
    for name in shape.relationships:
        if state.get(name):
            raise RowRejected(
                f"{shape.name}.{name} holds related rows, which are not followed;"
                " return them as rows of their own, with their keys set"
            )
