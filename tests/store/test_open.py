"""Opening makes what is missing, and says what is wrong in a sentence that helps."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, select

from pipeline.errors import ConfigurationError
from pipeline.store import Store
from pipeline.store.tables import METADATA
from tests.store.conftest import Look, effects
from tests.store.models import TABLES, Animal, Payment, Plain, Zoo
from tests.store.places import Place

TABLES_THERE = {
    "sqlite": "SELECT name FROM sqlite_schema WHERE type = 'table'",
    "postgresql": "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'",
}


@pytest.fixture
def empty(place: Place) -> Place:
    """A place without any tables."""
    return place.beside()


async def test_tables_are_made_and_found_again(empty: Place) -> None:
    # given nothing at all, when a store is opened, used, closed and opened again
    for expected in ([], [1]):
        store = await Store.open(empty.url, "payments", [Payment])
        assert await store.query(select(Payment.order_id)) == expected
        await store.commit([effects(Payment(order_id=len(expected) + 1, customer="x"))])
        await store.close()

    # then its tables and what was committed are there
    tables = {name for (name,) in empty.look(TABLES_THERE[empty.kind])}
    assert tables == {*METADATA.tables, "pipeline_alembic_worker", "payment"}
    assert {"pipeline_inbox", "pipeline_result", "pipeline_outbox"} < tables
    assert empty.look("SELECT count(*) FROM payment") == [(2,)]


async def test_tables_that_are_referred_to_are_made_too(empty: Place) -> None:
    # given a store opened with a table that refers to another
    store = await Store.open(empty.url, "payments", [Animal])

    # when rows of both are committed, then they are there
    report = await store.commit([effects(Zoo(id=1), Animal(id=1, zoo_id=1))])
    await store.close()
    assert report.rejected == {}
    assert empty.look("SELECT id FROM zoo") == [(1,)]


async def test_many_open_the_same_new_database_at_once(empty: Place) -> None:
    stores = await asyncio.gather(*(Store.open(empty.url, "payments", TABLES) for _ in range(8)))

    reports = await asyncio.gather(*(store.commit([effects(event_id="a")]) for store in stores))

    assert sorted(report.processed for report in reports) == [[]] * 7 + [["a"]]
    await asyncio.gather(*(store.close() for store in stores))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense", "nonsense can't be read; it must look like sqlite.* or postgresql"),
        ("sqlite:///x.db", "of a kind this version can't use; it must look like sqlite.* or postgresql"),
        ("oracle://user:secret@host/x", r"oracle://user:\*\*\*@host/x is of a kind"),
        ("postgresql+psycopg://user:secret@host/x", r"postgresql\+psycopg://user:\*\*\*@host/x is of a kind"),
        ("postgresql://user:secret@host:port/x?password=secret", r"postgresql://user:\*\*\*@host:port/x can't be read"),
        ("x://[::1", "can't be read"),
    ],
)
async def test_a_url_that_means_no_database_says_what_would(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        await open_and_close(url)
    assert "secret" not in str(caught.value)


async def open_and_close(url: str) -> None:
    store = await Store.open(url, "payments", [Payment])
    await store.close()


async def test_a_class_that_is_no_table(url: str) -> None:
    with pytest.raises(ConfigurationError, match="Plain is not a table; declare it with table=True"):
        await Store.open(url, "payments", [Plain])


async def test_a_table_of_an_older_definition_is_found_at_once(url: str, look: Look) -> None:
    # given a database made when Payment had no note
    await open_and_close(url)
    look("ALTER TABLE payment DROP COLUMN note")

    # when a store is opened on it, then that is said before any event is refused
    with pytest.raises(ConfigurationError, match=r"table payment in .* has no column note.*ALTER TABLE"):
        await Store.open(url, "payments", [Payment])


async def test_a_table_that_refers_to_nothing(url: str) -> None:
    # given a class whose foreign key has no table
    class Apart(SQLModel, registry=registry()):
        pass

    class Lost(Apart, table=True):
        id: int = Field(primary_key=True, foreign_key="nowhere.id")

    # when a store is opened with it, then the error names it
    with pytest.raises(ConfigurationError, match="Lost can't be used as a table"):
        await Store.open(url, "payments", [Lost])
