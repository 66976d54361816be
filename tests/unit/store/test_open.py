"""Opening makes what is missing, and says what is wrong in a sentence that helps."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, select

from pipeline.errors import ConfigurationError, PipelineError, StoreUnavailable
from pipeline.store import Store
from tests.unit.store.conftest import Look, effects
from tests.unit.store.models import TABLES, Animal, Payment, Plain, Zoo


async def test_folder_and_tables_are_made_and_found_again(url: str, file: Path, look: Look) -> None:
    # given nothing at all
    assert not file.parent.exists()

    # when a store is opened, used, closed and opened again
    for expected in ([], [1]):
        store = await Store.open(url, "payments", [Payment])
        assert await store.query(select(Payment.order_id)) == expected
        await store.commit([effects(Payment(order_id=len(expected) + 1, customer="x"))])
        await store.close()

    # then its tables and what was committed are there
    tables = {name for (name,) in look("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert tables == {"pipeline_inbox", "pipeline_result", "pipeline_outbox", "payment"}
    assert look("SELECT count(*) FROM payment") == [(2,)]
    assert look("PRAGMA journal_mode") == [("wal",)]


async def test_tables_that_are_referred_to_are_made_too(url: str, look: Look) -> None:
    # given a store opened with a table that refers to another
    store = await Store.open(url, "payments", [Animal])

    # when rows of both are committed, then they are there
    report = await store.commit([effects(Zoo(id=1), Animal(id=1, zoo_id=1))])
    await store.close()
    assert report.rejected == {}
    assert look("SELECT id FROM zoo") == [(1,)]


async def test_many_open_the_same_new_database_at_once(url: str) -> None:
    stores = await asyncio.gather(*(Store.open(f"{url}0", "payments", TABLES) for _ in range(8)))

    reports = await asyncio.gather(*(store.commit([effects(event_id="a")]) for store in stores))

    assert sorted(report.processed for report in reports) == [[]] * 7 + [["a"]]
    await asyncio.gather(*(store.close() for store in stores))


async def test_a_subscriptions_name_stays_inside_the_folder(tmp_path: Path) -> None:
    store = await Store.open(f"sqlite+aiosqlite:///{tmp_path}/{{subscription}}.db", "../a?b/c", [])
    await store.close()

    assert (tmp_path / "..%2Fa%3Fb%2Fc.db").is_file()


@pytest.mark.parametrize(
    ("url", "kind", "says"),
    [
        ("nonsense", ConfigurationError, "nonsense can't be read; it must look like sqlite"),
        ("sqlite:///x.db", ConfigurationError, "of a kind this version can't use; it must look like sqlite"),
        ("oracle://user:secret@host/x", ConfigurationError, r"oracle://user:\*\*\*@host/x is of a kind"),
        ("x://[::1", ConfigurationError, r"can't be read"),
        ("sqlite+aiosqlite://", ConfigurationError, "names no file, so its results would be gone"),
        ("sqlite+aiosqlite:///:memory:", ConfigurationError, "names no file"),
        ("sqlite+aiosqlite:///file:x?mode=memory&uri=true", ConfigurationError, "names no file"),
        ("sqlite+aiosqlite:///{tmp}/file/x.db", StoreUnavailable, r"folder .*/file for the database can't be made"),
        ("sqlite+aiosqlite:////proc/nowhere/x.db", StoreUnavailable, "give this user write permission there, or set"),
        ("sqlite+aiosqlite:///{tmp}/folder", StoreUnavailable, "unable to open database file"),
        ("sqlite+aiosqlite:///{tmp}/file", StoreUnavailable, "not an SQLite database; move it away"),
        ("sqlite+aiosqlite:///file:{tmp}/old.db?mode=ro&uri=true", StoreUnavailable, "this user may only read it"),
    ],
)
async def test_what_cannot_be_opened_says_why(tmp_path: Path, url: str, kind: type[PipelineError], says: str) -> None:
    # given a file that is no database, a folder, and a database that is opened read-only
    (tmp_path / "file").write_text("this is not a database, and long enough to be sure of it" * 20)
    (tmp_path / "folder").mkdir()
    await open_and_close(f"sqlite+aiosqlite:///{tmp_path}/old.db")

    # when a store is opened there, then the error says what is wrong, and shows no password
    with pytest.raises(kind, match=says) as caught:
        await open_and_close(url.replace("{tmp}", str(tmp_path)))
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
