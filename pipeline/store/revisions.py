"""Which revision of the library's tables a database has, and must have. In: a connection. Out: tables, or why not.

Two families of tables have a history each: the workers' and the producer's. An empty database gets today's tables and
is marked with today's revision; an older one is changed by `pipeline db upgrade` alone (`migrating.py`), never by
whoever happens to open it first. Tables that were made before there were revisions count as the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, insert, inspect, select

from pipeline.errors import ConfigurationError
from pipeline.store.producer_tables import PRODUCER_METADATA
from pipeline.store.tables import METADATA, PREFIX


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """Tables that change together. `revisions` are all there have been, oldest first; `marks` is alembic's table."""

    name: str
    metadata: MetaData
    revisions: tuple[str, ...]
    marks: Table

    @property
    def head(self) -> str:
        """Today's revision."""
        return self.revisions[-1]


class Condition(Enum):
    """What a database is like, compared with what this version needs."""

    EMPTY = "empty"  # none of the tables is there
    UNMARKED = "unmarked"  # made before there were revisions; as good as the first
    CURRENT = "current"
    OUTDATED = "outdated"
    NEWER = "newer"  # made by a later version of this library


def _family(name: str, metadata: MetaData, *revisions: str) -> Family:
    table = f"{PREFIX}alembic_{name}"
    marks = Table(  # as alembic makes it
        table,
        MetaData(),
        Column("version_num", String(32), nullable=False),
        PrimaryKeyConstraint("version_num", name=f"{table}_pkc"),
    )
    return Family(name, metadata, revisions, marks)


WORKER = _family("worker", METADATA, "worker_0001")
PRODUCER = _family("producer", PRODUCER_METADATA, "producer_0001")


def revision_of(connection: Connection, family: Family) -> str | None:
    """The revision that is noted, None when none is."""
    if not inspect(connection).has_table(family.marks.name):
        return None
    return connection.execute(select(family.marks.c.version_num)).scalar()


def condition_of(connection: Connection, family: Family) -> tuple[Condition, str | None]:
    """What the database is like, and the revision that is noted."""
    revision = revision_of(connection, family)
    if revision is None:
        there = any(inspect(connection).has_table(name) for name in family.metadata.tables)
        return (Condition.UNMARKED if there else Condition.EMPTY), None
    if revision == family.head:
        return Condition.CURRENT, revision
    return (Condition.OUTDATED if revision in family.revisions else Condition.NEWER), revision


def make_tables(connection: Connection, family: Family, place: str) -> None:
    """Make the family's tables where they are missing. In a transaction that nobody else is beside.

    Raises: ConfigurationError when those that are there are not of this version.
    """
    condition, revision = condition_of(connection, family)
    if condition is Condition.UNMARKED and len(family.revisions) > 1:
        condition, revision = Condition.OUTDATED, family.revisions[0]
    match condition:
        case Condition.OUTDATED:
            raise ConfigurationError(
                f"the {family.name} tables in {place} are of revision {revision}, and this version needs"
                f" {family.head}: run `pipeline db upgrade`"
            )
        case Condition.NEWER:
            raise ConfigurationError(
                f"the {family.name} tables in {place} are of revision {revision}, which this version does not know:"
                " they were made by a later one; update this installation"
            )
    family.metadata.create_all(connection)
    if condition is Condition.EMPTY:
        family.marks.create(connection, checkfirst=True)
        connection.execute(insert(family.marks).values(version_num=family.head))


def check_columns(connection: Connection, tables: list[Table], place: str) -> None:
    """Raises: ConfigurationError when one of these tables lacks columns."""
    inspector = inspect(connection)
    for table in tables:
        present = {column["name"] for column in inspector.get_columns(table.name, schema=table.schema)}
        if missing := [column.name for column in table.columns if column.name not in present]:
            raise ConfigurationError(
                f"the table {table.fullname} in {place} has no column {', '.join(missing)}:"
                " it was made from an older definition; add the columns (ALTER TABLE) or move the database away"
            )
