"""The history of the library's own tables leads to what the code expects, from wherever a database stands."""

from __future__ import annotations

import asyncio
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from pipeline.errors import ConfigurationError
from pipeline.store import Store, revisions
from pipeline.store.migrating import FOLDER, State, Target, state, upgrade
from pipeline.store.producer import ProducerStore
from pipeline.store.revisions import PRODUCER, WORKER, Condition, Family
from tests.store.conftest import effects
from tests.store.places import Place

FAMILIES = pytest.mark.parametrize("family", [WORKER, PRODUCER], ids=lambda family: family.name)
SCHEMA = {
    "sqlite": ["SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL"],
    "postgresql": [
        (
            "SELECT format('%s.%s %s %s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),"
            " a.attnotnull, a.attidentity, l.collname) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
            " LEFT JOIN pg_collation l ON l.oid = a.attcollation"
            " WHERE a.attnum > 0 AND c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"
        ),
        (
            "SELECT pg_get_indexdef(indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid"
            " WHERE c.relnamespace = 'public'::regnamespace"
        ),
        (
            "SELECT format('%s %s', conrelid::regclass, pg_get_constraintdef(oid)) FROM pg_constraint"
            " WHERE connamespace = 'public'::regnamespace"
        ),
    ],
}


@pytest.fixture
def empty(place: Place) -> Place:
    """A place without any tables."""
    return place.beside()


def url_of(place: Place) -> str:
    return place.url.replace("{subscription}", "payments")


def target(place: Place, family: Family) -> Target:
    return Target("it", url_of(place), "payments", family, ("payments",))


def schema(place: Place) -> list[str]:
    """All that the database says of its tables, as text."""
    found = [str(text) for query in SCHEMA[place.kind] for (text,) in place.look(query)]
    return sorted(re.sub(r"\s+", " ", text).replace("( ", "(") for text in found)


async def opened_by(place: Place, family: Family) -> None:
    """Open the store that uses these tables, and close it."""
    store: Any = (
        await Store.open(place.url, "payments") if family is WORKER else await ProducerStore.open(url_of(place))
    )
    await store.close()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version of this library that comes after this one, with a revision more."""
    for family in (WORKER, PRODUCER):
        newer = replace(family, revisions=(*family.revisions, "later"))
        for module in ("revisions", "schema", "migrating"):
            monkeypatch.setattr(f"pipeline.store.{module}.{family.name.upper()}", newer)


@FAMILIES
async def test_migrating_leads_to_the_same_tables_as_making_them(place: Place, family: Family) -> None:
    # given an empty database that is upgraded, and another whose tables are made when a store is opened
    migrated, made = place.beside(), place.beside()
    assert await upgrade(target(migrated, family)) == State(Condition.EMPTY, None, family.head)
    await opened_by(made, family)

    # then they are the same to the last column, index and key; if not: write a revision, or mend it
    assert schema(migrated) == schema(made)
    assert await state(target(migrated, family)) == await state(target(made, family))


@FAMILIES
def test_the_revisions_that_are_known_are_those_there_are(family: Family) -> None:
    config = Config()
    config.set_main_option("path_separator", "newline")
    config.set_main_option("script_location", str(FOLDER))
    config.set_main_option("version_locations", str(FOLDER / family.name))
    scripts = ScriptDirectory.from_config(config)

    there = [script.revision for script in scripts.walk_revisions()]

    assert tuple(reversed(there)) == family.revisions
    assert scripts.get_heads() == [family.head]


@FAMILIES
async def test_upgrading_again_changes_nothing(empty: Place, family: Family) -> None:
    # given an upgraded database
    await upgrade(target(empty, family))
    before = schema(empty)

    # when it is upgraded again, then it says that it is current, and is as it was
    assert await upgrade(target(empty, family)) == State(Condition.CURRENT, family.head, family.head)
    assert schema(empty) == before
    await opened_by(empty, family)
    assert schema(empty) == before


async def test_a_database_of_before_there_were_revisions_is_adopted(empty: Place) -> None:
    # given a database with the three tables of an older version, and what it processed
    store = await Store.open(empty.url, "payments")
    await store.commit([effects(event_id="a", result=b"1")])
    await store.close()
    newest = schema(empty)
    for table in ("pipeline_alembic_worker", *(WORKER.metadata.tables.keys() - {"pipeline_inbox", "pipeline_result"})):
        empty.look(f"DROP TABLE {table}")
    assert await state(target(empty, WORKER)) == State(Condition.UNMARKED, None, WORKER.head)

    # when a worker opens it, then it goes on as before
    await opened_by(empty, WORKER)
    assert (await state(target(empty, WORKER))).condition is Condition.UNMARKED

    # and when it is upgraded, then nothing is lost, what was missing is there, and it is known
    await upgrade(target(empty, WORKER))
    assert schema(empty) == newest
    assert empty.look("SELECT event_id FROM pipeline_inbox") == [("a",)]
    assert await state(target(empty, WORKER)) == State(Condition.CURRENT, WORKER.head, WORKER.head)


PROGRAM = """\
import asyncio, sys
from pipeline.store.migrating import Target, upgrade
from pipeline.store.revisions import PRODUCER, WORKER
for family in (WORKER, PRODUCER):
    asyncio.run(upgrade(Target("it", sys.argv[1], "payments", family, ())))
"""


async def test_several_upgrades_at_once(empty: Place) -> None:
    # given an empty database, when two processes upgrade it and stores are opened on it at once
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, url_of(empty), cwd=Path(__file__).parents[2]
        )
        for _ in range(2)
    ]
    await asyncio.gather(*(opened_by(empty, family) for family in (WORKER, PRODUCER) * 2))

    # then all end well, and it is upgraded, once
    assert [await process.wait() for process in processes] == [0, 0]
    for family in (WORKER, PRODUCER):
        assert (await state(target(empty, family))).condition is Condition.CURRENT
        assert empty.look(f"SELECT count(*) FROM {family.marks.name}") == [(1,)]  # noqa: S608 - our own name


@FAMILIES
@pytest.mark.usefixtures("place")
async def test_an_outdated_database_is_not_opened(empty: Place, family: Family, request: pytest.FixtureRequest) -> None:
    # given a database of this version, one of before there were revisions, and a later version of the library
    other = empty.beside()
    await opened_by(empty, family)
    await opened_by(other, family)
    other.look(f"DROP TABLE {family.marks.name}")
    request.getfixturevalue("later")

    # when it opens them, then it says what to run
    for each in (empty, other):
        with pytest.raises(ConfigurationError, match=r"are of revision \w+_0001, and this version needs later: run"):
            await opened_by(each, family)
        newest = revisions.WORKER if family is WORKER else revisions.PRODUCER
        assert (await state(target(each, newest))).condition in (Condition.OUTDATED, Condition.UNMARKED)


@FAMILIES
async def test_a_database_of_a_later_version_is_left_alone(empty: Place, family: Family) -> None:
    # given a database that a later version has upgraded
    await opened_by(empty, family)
    empty.look(f"UPDATE {family.marks.name} SET version_num = 'later'")  # noqa: S608 - our own name
    before = schema(empty)

    # when this version opens or upgrades it, then it says so and touches nothing
    for attempt in (opened_by(empty, family), upgrade(target(empty, family))):
        with pytest.raises(ConfigurationError, match="of revision later, which this version does not know"):
            await attempt
    assert (await state(target(empty, family))).condition is Condition.NEWER
    assert schema(empty) == before


@FAMILIES
async def test_an_upgrade_that_fails_leaves_the_database_as_it_was(
    empty: Place, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given an upgrade that runs and then finds that the tables are not what they should be
    def refuse(*_: object) -> None:
        raise ConfigurationError("not as it should be")

    monkeypatch.setattr("pipeline.store.migrating.check_columns", refuse)

    # when it is run, then nothing of it stays
    with pytest.raises(ConfigurationError, match="not as it should be"):
        await upgrade(target(empty, family))
    assert schema(empty) == []


async def test_looking_at_a_database_that_is_not_there_makes_none(tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "x.db"

    found = await state(Target("it", f"sqlite+aiosqlite:///{file}", "payments", WORKER, ()))

    assert found == State(Condition.EMPTY, None, WORKER.head)
    assert not file.parent.exists()
