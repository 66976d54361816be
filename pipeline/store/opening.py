"""Which kind of database a URL means. In: a URL. Out: a `Database`, not connected yet, or an error that helps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

from sqlalchemy import Connection
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlmodel import SQLModel

from pipeline.addresses import mask
from pipeline.errors import ConfigurationError, StoreUnavailable
from pipeline.store.database import Database
from pipeline.store.schema import create_missing, tables_of
from pipeline.store.sqlite import Sqlite

SQLITE = "sqlite+aiosqlite"
POSTGRES = ("postgresql+asyncpg", "postgresql", "postgres")
LOOKS_LIKE_SQLITE = "sqlite+aiosqlite:///folder/{subscription}.db"
LOOKS_LIKE_POSTGRES = "postgresql+asyncpg://user:password@host/database"


# Makes the tables, or sees that they are there, on each new connection that writes. The text names the database.
Prepare: TypeAlias = Callable[[Connection, str], None]


def open_database(url: str, subscription: str, tables: Sequence[type[SQLModel]]) -> Database:
    """A subscription's database at `url`, not connected yet; for SQLite its folder is made.

    Raises: ConfigurationError, StoreUnavailable.
    """
    every = tables_of(tables)
    return database_at(url, subscription, lambda connection, place: create_missing(connection, every, place))


def database_at(url: str, name: str, prepare: Prepare) -> Database:
    """The database at `url`, in which `{subscription}` is replaced by `name`, not connected yet.

    Raises: ConfigurationError, StoreUnavailable.
    """
    parsed = _parse(url, name)
    if parsed.drivername in POSTGRES:
        return _postgres(parsed, name, prepare)
    if parsed.drivername == SQLITE:
        return _sqlite(parsed, _shown(url), prepare)
    raise ConfigurationError(
        f"the database URL {_shown(url)} is of a kind this version can't use;"
        f" it must look like {LOOKS_LIKE_SQLITE} or {LOOKS_LIKE_POSTGRES}"
    )


def resolved(url: str, name: str) -> str:
    """The URL with `{subscription}` replaced, secrets and all."""
    return _parse(url, name).render_as_string(hide_password=False)


def place_of(url: str, name: str) -> str:
    """The database that `url` means for `name`, fit for people's eyes."""
    parsed = _parse(url, name)
    return str(Path(parsed.database or "")) if parsed.drivername == SQLITE else _shown(parsed.render_as_string())


def file_of(url: str, name: str) -> Path | None:
    """The SQLite file that `url` means for `name`; None when it means something else."""
    parsed = _parse(url, name)
    return Path(parsed.database or "") if parsed.drivername == SQLITE and "uri" not in parsed.query else None


def _sqlite(url: URL, place: str, prepare: Prepare) -> Database:
    if url.database in (None, "", ":memory:") or url.query.get("mode") == "memory":
        raise ConfigurationError(
            f"the database URL {place} names no file, so its results would be gone with the process;"
            f" it must look like {LOOKS_LIKE_SQLITE}"
        )
    if "uri" not in url.query:
        _make_folder(Path(url.database or "").parent)
    try:
        return Sqlite(url, lambda connection: prepare(connection, place))
    except (ImportError, NoSuchModuleError, ArgumentError) as error:
        raise ConfigurationError(f"the database URL {place} can't be used: {error}") from error


def _postgres(url: URL, name: str, prepare: Prepare) -> Database:
    try:
        from pipeline.store.postgres import Postgres  # its driver is an extra, which not everybody installs
        from pipeline.store.postgres_address import address_of
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise ConfigurationError(
            "the driver for PostgreSQL is not installed: pip install 'event-pipeline[postgres]'"
        ) from error
    address = address_of(url, name)
    return Postgres(address, lambda connection: prepare(connection, address.name))


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
            " give this user write permission there, or give another place in the database URL"
        ) from error
