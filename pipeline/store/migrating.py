"""Brings databases to today's tables, and says how they are. In: settings, subscriptions. Out: what was found and done.

alembic runs the revisions of `migrations/`, in one transaction a database, under the lock that also keeps those apart
who make missing tables: two upgrades at once do it once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from pipeline.errors import ConfigurationError
from pipeline.settings import Settings
from pipeline.store.opening import database_at, file_of, place_of, resolved
from pipeline.store.producer.store import NAME
from pipeline.store.revisions import PRODUCER, WORKER, Condition, Family, check_columns, condition_of

FOLDER = Path(__file__).parent / "migrations"


@dataclass(frozen=True, slots=True)
class Target:
    """One database with one family of tables: `place` names it without secrets, `serves` says for whom it is."""

    place: str
    url: str
    name: str
    family: Family
    serves: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class State:
    """How a database is: its condition, the revision noted in it, and the one this version needs."""

    condition: Condition
    revision: str | None
    needed: str


def targets(settings: Settings, subscriptions: Iterable[str]) -> list[Target]:
    """The databases that these settings mean: the subscriptions', each once, and the producer's.

    Raises: ConfigurationError for a URL that can't be read.
    """
    found: dict[str, Target] = {}
    for name in subscriptions:
        url = resolved(settings.database_of(name), name)
        before = found.get(url)
        serves = (*(before.serves if before else ()), name)
        found[url] = Target(place_of(url, name), url, name, WORKER, serves)
    url = settings.producer_database_url
    return [*found.values(), Target(place_of(url, NAME), url, NAME, PRODUCER, (NAME,))]


async def state(target: Target) -> State:
    """How the database is; nothing is made or changed. Raises: ConfigurationError, StoreUnavailable."""
    file = file_of(target.url, target.name)
    if file is not None and not file.exists():
        return State(Condition.EMPTY, None, target.family.head)
    return await _with(target, partial(_look, target.family))


async def upgrade(target: Target) -> State:
    """Bring the database to this version's tables; how it was before.

    Raises: ConfigurationError when it is of a later version, or is not what its revision says; StoreUnavailable.
    """
    return await _with(target, partial(_upgrade, target.family))


async def _with(target: Target, look: partial[State]) -> State:
    found: list[State] = []
    database = database_at(target.url, target.name, lambda connection, place: found.append(look(connection, place)))
    try:
        await database.write(lambda connection: None)  # connects, which calls it
    finally:
        await database.close()
    return found[-1]


def _look(family: Family, connection: Connection, _place: str) -> State:
    with connection.begin():
        return State(*condition_of(connection, family), family.head)


def _upgrade(family: Family, connection: Connection, place: str) -> State:
    from alembic import command  # takes its time to import, and only upgrades need it
    from alembic.config import Config

    with connection.begin():
        before = State(*condition_of(connection, family), family.head)
        if before.condition is Condition.NEWER:
            raise ConfigurationError(
                f"the {family.name} tables in {place} are of revision {before.revision}, which this version does not"
                " know: they were made by a later one; update this installation"
            )
        config = Config(attributes={"connection": connection, "family": family})
        config.set_main_option("path_separator", "newline")  # a folder's name may hold any of the others
        config.set_main_option("script_location", _escaped(FOLDER))
        config.set_main_option("version_locations", _escaped(FOLDER / family.name))
        command.upgrade(config, family.head)
        check_columns(connection, family.metadata.sorted_tables, place)
    return before


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%%")
