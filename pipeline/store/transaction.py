"""The one transaction: inbox, rows, results and follow-up events of a batch. In: effects. Out: a `CommitReport`.

All of a batch is committed together. When some event's rows break it, the batch is taken again in halves, each behind a
savepoint, until the events at fault stand alone: they are left out, and the rest is still one transaction. Only when it
is the COMMIT that fails (a deferred constraint), or the database has rolled back everything by itself (ON CONFLICT
ROLLBACK), do the halves become transactions of their own. An event's effects are never split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from sqlalchemy import Connection, UpdateBase
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from pipeline.errors import RowRejected, StoreUnavailable
from pipeline.event import utc_now
from pipeline.store.database import Database
from pipeline.store.order import InOrder
from pipeline.store.rows import Rows, rows_statement
from pipeline.store.tables import INBOX, OUTBOX, RESULT
from pipeline.store.writes import CommitReport, Effects

Rejected: TypeAlias = dict[str, RowRejected]
REASON_LENGTH = 500  # characters of a database's message worth keeping


class Refused(Exception):
    """The database refused something of what was written; `str()` is its reason."""


class Committer:
    """Commits batches of one subscription. Holds what is prepared once."""

    def __init__(self, database: Database, subscription: str) -> None:
        self._database = database
        self._subscription = subscription
        self._rows = Rows(database.insert)
        result = database.insert(RESULT)
        # A result without its inbox row was left by someone who wants the event processed again.
        result = result.on_conflict_do_update(
            index_elements=[RESULT.c.subscription, RESULT.c.event_id],
            set_={name: result.excluded[name] for name in ("event_type", "value", "created_at")},
        )
        self._result = rows_statement(RESULT, result, RESULT.columns.keys())
        self._outbox = rows_statement(OUTBOX, database.insert(OUTBOX), OUTBOX.columns.keys())

    def commit(self, connection: Connection, batch: Sequence[Effects]) -> CommitReport:
        """Commit the batch as far as the database takes it.

        Raises: StoreUnavailable when the database is in trouble: nothing is known to be committed, try again later.
        """
        report = CommitReport([], set(), {})
        first: dict[str, Effects] = {}
        for effects in batch:
            if first.setdefault(effects.event_id, effects) is not effects:
                report.duplicates.add(effects.event_id)
        for event_id in unstorable(first):
            report.rejected[event_id] = RowRejected(
                f"event id {event_id!r} holds characters that a database can't keep (NUL or half a surrogate pair);"
                " have its publisher give it another"
            )
            del first[event_id]
        if first:
            self._commit(connection, list(first.values()), report)
        return report

    def _commit(self, connection: Connection, events: list[Effects], report: CommitReport) -> None:
        try:
            self._transaction(connection, events, report, self._in_one_piece)
            return
        except Refused as refused:
            if len(events) == 1:
                report.rejected[events[0].event_id] = refusal(events[0], refused)
                return
        try:
            self._transaction(connection, events, report, self._in_halves)
        except Refused:
            for half in _halves(events):
                self._commit(connection, half, report)

    def _transaction(
        self,
        connection: Connection,
        events: list[Effects],
        report: CommitReport,
        write: Callable[[Connection, list[Effects], str], Rejected],
    ) -> None:
        at = utc_now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        types = {event.event_id: event.event_type for event in events}
        with self._our_part():
            transaction = connection.begin()
        try:
            with self._our_part():
                fresh = self._database.claim(connection, self._subscription, types, at)
            rejected = write(connection, [event for event in events if event.event_id in fresh], at)
            with self._our_part():
                if rejected:
                    self._release(connection, rejected)
                transaction.commit()
        except Refused:
            transaction.rollback()
            connection.connection.rollback()  # SQLAlchemy sends no ROLLBACK after a COMMIT that failed
            raise
        report.rejected.update(rejected)
        report.duplicates.update(types.keys() - fresh)
        report.processed.extend(event_id for event_id in types if event_id in fresh and event_id not in rejected)

    def _in_one_piece(self, connection: Connection, events: list[Effects], at: str) -> Rejected:
        with self._their_part():
            self._write(connection, events, at)
        return {}

    def _in_halves(self, connection: Connection, events: list[Effects], at: str) -> Rejected:
        rejected: Rejected = {}
        for half in _halves(events):
            savepoint = connection.begin_nested()
            try:
                self._in_one_piece(connection, half, at)
            except Refused as refused:
                with self._their_part():  # there is no savepoint left if the database has rolled back everything
                    savepoint.rollback()
                if len(half) == 1:
                    rejected[half[0].event_id] = refusal(half[0], refused)
                else:
                    rejected.update(self._in_halves(connection, half, at))
            else:
                savepoint.commit()
        return rejected

    def _write(self, connection: Connection, events: list[Effects], at: str) -> None:
        def run(statement: UpdateBase) -> None:
            connection.execute(statement).close()

        writes = InOrder(self._rows, lambda *rows: self._database.insert_rows(connection, *rows), run)
        outgoing = []
        results: dict[str, list[str]] = {}  # by event: a forced replay may come together with what it repeats
        for event in events:
            for write in event.writes:
                writes.add(write)
            if event.result is not None:
                event_id = event.result_id or event.event_id
                results[event_id] = [self._subscription, event_id, event.event_type, event.result.decode(), at]
            for out in event.outgoing:
                to = [out.key, out.message_id, out.exchange, out.routing_key, out.body, out.properties]
                outgoing.append([self._subscription, *to, at])
        writes.flush()
        if results:
            self._database.insert_rows(connection, self._result, list(results.values()))
        if outgoing:
            self._database.insert_rows(connection, self._outbox, outgoing)

    def _release(self, connection: Connection, rejected: Rejected) -> None:
        self._database.forget(connection, INBOX, self._subscription, list(rejected))

    @contextmanager
    def _their_part(self) -> Iterator[None]:
        """Errors of what handlers wrote: refused, unless the database is in trouble."""
        try:
            yield
        except Refused:
            raise
        except Exception as error:  # a handler's values may fail in any way when they are converted
            raise self._database.fault(error) or Refused(_reason(error)) from error

    @contextmanager
    def _our_part(self) -> Iterator[None]:
        """Errors of BEGIN, inbox and COMMIT: the database's trouble, but for an odd id or a deferred constraint."""
        try:
            yield
        except (IntegrityError, RowRejected) as error:
            raise Refused(_reason(error)) from error
        except Exception as error:
            if (fault := self._database.fault(error)) is not None:
                raise fault from error
            if isinstance(error, SQLAlchemyError):
                raise StoreUnavailable(f"the inbox can't be used: {_reason(error)}") from error
            raise


def unstorable(event_ids: Iterable[str]) -> list[str]:
    """Ids that no database keeps as they are: with a NUL (SQLite's JSON cuts there), or not encodable."""
    if _storable("".join(event_ids)):
        return []
    return [event_id for event_id in event_ids if not _storable(event_id)]


def _storable(text: str) -> bool:
    try:
        return "\0" not in text and (text.isascii() or bool(text.encode()))
    except UnicodeEncodeError:
        return False


def _halves(events: list[Effects]) -> tuple[list[Effects], ...]:
    middle = len(events) // 2
    return (events[:middle], events[middle:]) if middle else (events,)


def refusal(event: Effects, refused: Refused) -> RowRejected:
    """What its event is told."""
    return RowRejected(
        f"event {event.event_id} ({event.event_type}): the database refused its rows: {refused};"
        " nothing of it was written"
    )


def _reason(error: Exception) -> str:
    """The driver's own words, without the statement and the values SQLAlchemy adds."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = str(cause).strip() or type(cause).__name__
    return text[:REASON_LENGTH]
