"""Which kind of database a URL means. In: a URL. Out: a `Database`, not connected yet, or an error that helps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Table
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlmodel import SQLModel

from pipeline.errors import ConfigurationError, StoreUnavailable
from pipeline.settings import mask
from pipeline.store.database import Database
from pipeline.store.schema import create_missing, tables_of
from pipeline.store.sqlite import Sqlite

SQLITE = "sqlite+aiosqlite"
POSTGRES = ("postgresql+asyncpg", "postgresql", "postgres")
LOOKS_LIKE_SQLITE = "sqlite+aiosqlite:///folder/{subscription}.db"
LOOKS_LIKE_POSTGRES = "postgresql+asyncpg://user:password@host/database"


def open_database(url: str, subscription: str, tables: Sequence[type[SQLModel]]) -> Database:
    """The database at `url`, not connected yet; for SQLite its folder is made.

    Raises: ConfigurationError, StoreUnavailable.
    """
    parsed = _parse(url, subscription)
    if parsed.drivername in POSTGRES:
        return _postgres(parsed, subscription, tables_of(tables))
    if parsed.drivername == SQLITE:
        return _sqlite(parsed, _shown(url), tables_of(tables))
    raise ConfigurationError(
        f"the database URL {_shown(url)} is of a kind this version can't use;"
        f" it must look like {LOOKS_LIKE_SQLITE} or {LOOKS_LIKE_POSTGRES}"
    )


def _sqlite(url: URL, place: str, tables: Sequence[Table]) -> Database:
    if url.database in (None, "", ":memory:") or url.query.get("mode") == "memory":
        raise ConfigurationError(
            f"the database URL {place} names no file, so its results would be gone with the process;"
            f" it must look like {LOOKS_LIKE_SQLITE}"
        )
    if "uri" not in url.query:
        _make_folder(Path(url.database or "").parent)
    try:
        return Sqlite(url, partial(create_missing, tables=tables, place=place))
    except (ImportError, NoSuchModuleError, ArgumentError) as error:
        raise ConfigurationError(f"the database URL {place} can't be used: {error}") from error


def _postgres(url: URL, subscription: str, tables: Sequence[Table]) -> Database:
    try:
        from pipeline.store.postgres import Postgres  # its driver is an extra, which not everybody installs
        from pipeline.store.postgres_address import address_of
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise ConfigurationError(
            "the driver for PostgreSQL is not installed: pip install 'event-pipeline[postgres]'"
        ) from error
    address = address_of(url, subscription)
    return Postgres(address, partial(create_missing, tables=tables, place=address.name))


def _parse(url: str, subscription: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise ConfigurationError(
            f"the database URL {_shown(url)} can't be read;"
            f" it must look like {LOOKS_LIKE_SQLITE} or {LOOKS_LIKE_POSTGRES}"
        ) from error
    if parsed.database is None:
        return parsed
    # A name with a slash must not lead out of the folder.
    return parsed.set(database=parsed.database.replace("{subscription}", quote(subscription, safe="")))


def _shown(url: str) -> str:
    if url.startswith("postgres"):
        url = url.partition("?")[0]  # a password may stand among the parameters
    try:
        return mask(url)
    except ValueError:
        return "(unreadable)"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(
            f"the folder {folder} for the database can't be made ({error.strerror});"
            " give this user write permission there, or set PIPELINE_DATABASE_URL to another place"
        ) from error
