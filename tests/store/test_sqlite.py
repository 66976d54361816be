"""What is SQLite's alone: files, folders, its codes, and what it makes of odd values."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from pipeline.errors import ConfigurationError, PipelineError, StoreUnavailable
from pipeline.store import Counts, Store
from pipeline.store.sqlite_faults import TROUBLE, sqlite_fault
from tests.store.conftest import Look, effects
from tests.store.models import Everything, Payment
from tests.store.places import SqliteFile


@pytest.fixture
def place(sqlite_place: SqliteFile) -> SqliteFile:
    """Only a file."""
    return sqlite_place


async def test_the_folder_is_made_and_the_journal_is_written_ahead(place: SqliteFile, look: Look) -> None:
    # given no folder
    assert not place.file.parent.exists()

    # when a store is opened there
    await open_and_close(place.url)

    # then there is a file in it, whose readers and writers pass each other
    assert look("PRAGMA journal_mode") == [("wal",)]
    assert look("PRAGMA integrity_check") == [("ok",)]


async def test_a_new_file_is_opened_by_many_at_once(tmp_path: Path) -> None:
    for number in range(40):
        # given a file that nobody has opened yet, when several open it in the same moment
        url = f"sqlite+aiosqlite:///{tmp_path}/new-{number}.db"
        stores = await asyncio.gather(*(Store.open(url, "payments", []) for _ in range(4)))

        # then none is refused
        for store in stores:
            await store.close()


async def test_text_with_a_nul_is_kept_and_no_number_is_null(store: Store, look: Look) -> None:
    report = await store.commit(
        [effects(Payment(order_id=1, customer="a\0b")), effects(Everything(id=1, price=Decimal("NaN")), event_id="nan")]
    )

    assert look("SELECT customer FROM payment") == [("a\0b",)]
    assert "NOT NULL constraint failed: everything.price" in str(report.rejected["nan"])


async def test_a_subscriptions_name_stays_inside_the_folder(tmp_path: Path) -> None:
    store = await Store.open(f"sqlite+aiosqlite:///{tmp_path}/{{subscription}}.db", "../a?b/c", [])
    await store.close()

    assert (tmp_path / "..%2Fa%3Fb%2Fc.db").is_file()


@pytest.mark.parametrize(
    ("url", "kind", "says"),
    [
        ("sqlite+aiosqlite://", ConfigurationError, "names no file, so its results would be gone"),
        ("sqlite+aiosqlite:///:memory:", ConfigurationError, "names no file"),
        ("sqlite+aiosqlite:///file:x?mode=memory&uri=true", ConfigurationError, "names no file"),
        ("sqlite+aiosqlite:///{tmp}/file/x.db", StoreUnavailable, r"folder .*/file for the database can't be made"),
        (
            "sqlite+aiosqlite:////proc/nowhere/x.db",
            StoreUnavailable,
            "give this user write permission there, or give another place",
        ),
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

    # when a store is opened there, then the error says what is wrong
    with pytest.raises(kind, match=says):
        await open_and_close(url.replace("{tmp}", str(tmp_path)))


async def open_and_close(url: str) -> None:
    store = await Store.open(url, "payments", [Payment])
    await store.close()


def no_room(connection: Connection) -> None:
    """SQLite takes the least limit it can: the size the file has."""
    with connection.begin():
        connection.exec_driver_sql("PRAGMA max_page_count = 1")


async def test_a_full_disk(store: Store) -> None:
    # given a database that can't grow any more
    await store.commit([effects(event_id="first")])
    await store._database.write(no_room)  # noqa: SLF001
    batch = [effects(Payment(order_id=number, customer="x" * 4000)) for number in range(100)]

    # when a batch is committed that does not fit in, then it is nobody's fault
    with pytest.raises(StoreUnavailable, match=r"disk is full.*make room"):
        await store.commit(batch)
    assert await store.counts() == Counts(1, 0, 0)

    # and when there is room again (the limit was that connection's) it is committed
    assert len((await store.commit(batch)).processed) == 100


async def test_a_file_that_is_deleted_is_made_anew(store: Store, place: SqliteFile, look: Look) -> None:
    # given a store whose folder somebody deletes and makes again
    await store.commit([effects(event_id="a")])
    assert await store.seen(["a"]) == {"a"}
    shutil.rmtree(place.file.parent)
    with pytest.raises(StoreUnavailable, match=r"unable to open database file.*folder is there"):
        await store.commit([effects(event_id="b")])
    place.file.parent.mkdir()

    # when a batch is looked up and committed, then in the file that is there now, not in the one that is gone
    assert await store.seen(["a"]) == set()
    assert (await store.commit([effects(Payment(order_id=1, customer="x"), event_id="c")])).processed == ["c"]
    assert look("SELECT order_id FROM payment") == [(1,)]
    assert await store.counts() == Counts(1, 0, 0)


@pytest.mark.parametrize("code", sorted(TROUBLE))
def test_every_kind_of_trouble_is_recognised_with_its_extended_codes(code: int) -> None:
    # given SQLite's error, bare or wrapped by SQLAlchemy, with more detail in its upper bits
    error = sqlite3.OperationalError("words")
    error.sqlite_errorcode = code | (3 << 8)

    for raised in (error, OperationalError("SELECT 1", None, error)):
        fault = sqlite_fault(raised, "the.db")

        assert isinstance(fault, StoreUnavailable)
        assert str(fault) == f"the database the.db can't be used (words): {TROUBLE[code]}"


@pytest.mark.parametrize(
    "code", [sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_ERROR]
)
def test_what_was_written_is_never_taken_for_trouble(code: int) -> None:
    error = sqlite3.DatabaseError("UNIQUE constraint failed: payment.id")
    error.sqlite_errorcode = code

    assert sqlite_fault(error, "the.db") is None
