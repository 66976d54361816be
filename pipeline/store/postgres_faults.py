"""Sorts PostgreSQL's errors: the database's trouble or refused rows. In: an exception. Out: `StoreUnavailable` or None.

Goes by SQLSTATE, never by words, which a server may say in any language. The words themselves often show values (whole
rows, in DETAIL), which are somebody's data: `without_values` says what may be said in logs and dead letters.
"""

from __future__ import annotations

import re
from typing import Any

import asyncpg
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from pipeline.errors import StoreUnavailable
from pipeline.store.tables import PREFIX

LOST = "the connection was lost; the next try opens another"

# SQLSTATEs and their classes that are about the server, the network or the settings, with what to do; the longest that
# fits is taken. Constraints, data, SQL errors are about what was written, so not here. So is XX000: that server error
# can be of some value's making, and an event must not hold the others up for ever.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
TROUBLE = {
    "08": LOST,
    "25006": "it may only be read; is it a standby? connect to the primary",
    "25P03": "a transaction stood idle for too long",
    "26000": "a prepared statement is gone; connect to PostgreSQL itself, or by a pooler in session mode",
    "28": "check user and password, and the server's pg_hba.conf",
    "3D000": "there is no such database; create it, or correct PIPELINE_DATABASE_URL",
    "40": "another transaction was in the way; it passes",
    "42501": "have its owner GRANT this user the right to it",
    "42P05": "a prepared statement is another's; connect to PostgreSQL itself, or by a pooler in session mode",
    "53": "the server lacks something; look at its log",
    "53100": "the disk is full; make room",
    "53200": "the server has no memory left",
    "53300": "end some connections, or raise max_connections",
    "55006": "somebody uses it for himself; it passes",
    "55P03": "another process holds a lock in it; it passes, or end the program that holds it",
    "55P04": "an enum has a value that is not committed yet; it passes",
    "57": "the server is being stopped or started, or ended the connection",
    "57014": "a statement took too long or was cancelled; more time: ?command_timeout= in the URL",
    "58": "the server has trouble with its disk; look at its log",
    "F0": "the server's configuration is at fault; look at its log",
    "XX001": "its data is damaged; restore it from a backup",
    "XX002": "an index of it is damaged; REINDEX it",
}
# A transaction that ended with these has harmed nothing: its connection is as good as before.
HARMLESS = ("40", "55P03", "57014")

# Classes whose messages hold names only: of constraints, tables, columns, users, settings.
NAMES_ONLY = ("08", "23", "25", "28", "3D", "40", "42", "53", "54", "55", "57", "58", "F0")
SYNTAX_ERROR = "42601"
WRONG_CHARACTERS = "22021"  # what comes from Python is UTF-8, so only this one is left
RAISED = "exec_stmt_raise"  # the server's function behind RAISE in PL/pgSQL: its words may hold anything
ROW_SECURITY = "ExecWithCheckOptions"  # refuses a row, by the SQLSTATE of missing rights
QUOTE = "[\"'\u00ab\u00bb\u2018-\u201f\u2039\u203a\u300c\u300d]"  # of the languages a server may speak
QUOTED = re.compile(f"{QUOTE}.*{QUOTE}", re.DOTALL)
ARGUMENT = re.compile(r"\$(\d+)")
WHAT_IS_WRONG = re.compile(r"expected [\w ]+, got [\w ]+|value out of \w+ range|surrogates not allowed")
TOLD = "pipeline_told"  # the attribute of an error whose values are hidden
MIXED_TIMES = "offset-naive and offset-aware"


def driver_error(error: BaseException) -> BaseException:
    """asyncpg's own error beneath SQLAlchemy's wrappings, or the error itself."""
    wrapped: BaseException | None = error.orig if isinstance(error, StatementError) else error
    if wrapped is None:
        return error
    if not isinstance(wrapped, asyncpg.PostgresError | asyncpg.InterfaceError) and wrapped.__cause__ is not None:
        return wrapped.__cause__
    return wrapped


def sqlstate(error: BaseException) -> str:
    """The error's SQLSTATE, "" when it has none."""
    return getattr(driver_error(error), "sqlstate", None) or ""


def postgres_fault(error: BaseException, name: str) -> StoreUnavailable | None:
    """What is wrong with the database `name`, or None when the error is about what was written to it."""
    if isinstance(error, StoreUnavailable):
        return error
    if isinstance(error, PoolTimeout):
        return StoreUnavailable(f"the database {name} has no free connection: too many queries at once")
    if isinstance(error, MemoryError):
        return StoreUnavailable(f"the database {name} can't be used: there is no memory left")
    cause = driver_error(error)
    what = _trouble(cause)
    if what is None and isinstance(error, DBAPIError) and error.connection_invalidated:
        what = LOST
    return StoreUnavailable(f"the database {name} can't be used ({without_values(cause)}): {what}") if what else None


def _trouble(cause: BaseException) -> str | None:
    if isinstance(cause, asyncpg.InvalidCachedStatementError | asyncpg.OutdatedSchemaCacheError):
        return "its tables were changed; the next try knows them"
    if not isinstance(cause, asyncpg.PostgresError) or getattr(cause, "server_source_function", "") == ROW_SECURITY:
        return None
    state = cause.sqlstate or ""
    if (what := TROUBLE.get(state) or TROUBLE.get(state[:2])) is not None:
        return what
    if state.startswith("42") and PREFIX in str(cause.args[0]):
        return "this library's tables were dropped or changed; was it replaced? the next try makes what is missing"
    return None


def argument(error: BaseException) -> int | None:
    """Which argument of the statement could not be sent, from 1; None when that is not what is wrong."""
    cause: Any = driver_error(error)
    if not isinstance(cause, asyncpg.DataError) or cause.severity is not None:
        return None
    found = ARGUMENT.search(str(cause.args[0]))
    return int(found[1]) if found else None


def hide_values(error: BaseException, wrapped: BaseException | None) -> None:
    """Take what may be data out of the driver's error and out of what SQLAlchemy made of it; kept is what it means."""
    cause: Any = driver_error(error)
    if not isinstance(cause, asyncpg.PostgresError):
        return
    told = without_values(cause)
    for each in (cause, error):
        each.args = (told, *each.args[1:])
    if wrapped is not None:
        wrapped.args = (f"({type(cause).__name__}) {told}",)
    cause.__cause__ = cause.__context__ = None
    setattr(cause, TOLD, told)
    cause.message = told
    cause.detail = cause.hint = cause.context = cause.internal_query = cause.query = None


def harmless(error: BaseException) -> bool:
    """Whether the connection may be used again after this and a rollback."""
    return sqlstate(error).startswith(HARMLESS)


def without_values(error: BaseException) -> str:
    """What the error says, but for what may be data."""
    if (told := getattr(error, TOLD, "")) or not isinstance(error, asyncpg.PostgresError):
        return told or str(error).strip() or type(error).__name__
    message = " ".join(str(error.args[0]).split()) if error.args else ""
    fields: Any = error  # asyncpg sets them by the server's answer
    state = error.sqlstate or ""
    if isinstance(error, asyncpg.DataError) and fields.severity is None:
        return _unfit(message)
    if fields.server_source_function == RAISED:
        return f"a function of the database raised an error [{state}]; its words are in the server's log"
    if state == WRONG_CHARACTERS:
        return f"text holds a NUL character, which PostgreSQL can't keep [{state}]"
    if not state.startswith(NAMES_ONLY) or state == SYNTAX_ERROR:
        # What is said before the first colon is about types, and values stand in quotes.
        message = QUOTED.sub('"…"', message.partition(":")[0])
    return f"{message or type(error).__name__} [{state}]"


def _unfit(message: str) -> str:
    """asyncpg's complaint about a value it can't send: it shows the value, and then in brackets what is wrong."""
    argument = ARGUMENT.search(message)
    where = f"parameter {argument[0]}" if argument else "a parameter"
    reason = message.rpartition("(")[2]
    if MIXED_TIMES in reason:
        return (
            f"{where} is a time with a time zone for a column without, or the other way round;"
            " declare the column with sa_type=DateTime(timezone=True)"
        )
    found = WHAT_IS_WRONG.search(reason)
    return f"{where} is not of the type of its column{f' ({found[0]})' if found else ''}"
