"""Sorts SQLite's errors: the database's trouble or refused rows. In: an exception. Out: `StoreUnavailable` or None."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from pipeline.errors import StoreUnavailable
from pipeline.store.tables import PREFIX

# Primary result codes that are about the file, the disk or the process, with what to do. Constraints, mismatches, sizes
# and SQL errors (unknown table or column) are about what was written, so not here. https://sqlite.org/rescode.html
TROUBLE = {
    sqlite3.SQLITE_BUSY: "another process holds its lock; it passes, or end the program that has the file open",
    sqlite3.SQLITE_LOCKED: "another connection holds a lock in it; it passes",
    sqlite3.SQLITE_FULL: "the disk is full, or the database has reached its size limit; make room",
    sqlite3.SQLITE_IOERR: "the disk reports an error; look at the system's log",
    sqlite3.SQLITE_CANTOPEN: "check that its folder is there and that this user may write to it",
    sqlite3.SQLITE_READONLY: "this user may only read it; give it and its folder write permission",
    sqlite3.SQLITE_PERM: "give this user write permission to it",
    sqlite3.SQLITE_AUTH: "access was denied",
    sqlite3.SQLITE_NOTADB: "the file is not an SQLite database; move it away",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restore it from a backup",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
    sqlite3.SQLITE_PROTOCOL: "its lock can't be had; is it on a network file system?",
    sqlite3.SQLITE_INTERRUPT: "the statement was interrupted",
    sqlite3.SQLITE_SCHEMA: "its tables are being changed",
    sqlite3.SQLITE_INTERNAL: "SQLite found an error in itself",
    sqlite3.SQLITE_ABORT: "the statement was aborted",
    sqlite3.SQLITE_NOLFS: "the file system can't hold files of this size",
    sqlite3.SQLITE_MISUSE: "its connection was used in a wrong way",
}


def sqlite_fault(error: BaseException, file: str) -> StoreUnavailable | None:
    """What is wrong with the database `file`, or None when the error is about what was written to it."""
    if isinstance(error, StoreUnavailable):
        return error
    if isinstance(error, PoolTimeout):
        return StoreUnavailable(f"the database {file} has no free connection: too many queries at once")
    if isinstance(error, MemoryError):
        return StoreUnavailable(f"the database {file} can't be used: there is no memory left")
    cause = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(cause, sqlite3.Error):
        return None
    code = getattr(cause, "sqlite_errorcode", None)
    if code is None:  # the driver's own complaint: a value of a wrong type, or a connection that is closed
        closed = "closed" in str(cause) or "no active connection" in str(cause)
        return StoreUnavailable(f"the database {file} can't be used: its connection is closed") if closed else None
    if (what := TROUBLE.get(code & 0xFF)) is not None:
        return StoreUnavailable(f"the database {file} can't be used ({cause}): {what}")
    if code & 0xFF == sqlite3.SQLITE_ERROR and f"table: {PREFIX}" in str(cause):
        return StoreUnavailable(
            f"the database {file} has lost this library's tables ({cause}); was it replaced? restart the worker"
        )
    return None
