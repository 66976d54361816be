"""The one transaction of an ordered subscription. In: entries in order, epochs. Out: an `OrderedReport`, filled.

As a rule all is written in one piece. When the database refuses that, the entries are taken again one by one, each
behind a savepoint; an event that is refused takes with it what follows of its key, for effects must not overtake each
other. When it is the COMMIT that fails, each entry becomes a transaction of its own, still in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from sqlalchemy import Connection, func, select

from pipeline.errors import RowRejected
from pipeline.event import utc_now
from pipeline.store.database import Database
from pipeline.store.ordered.lines import Entry, OrderedReport
from pipeline.store.rows import rows_statement
from pipeline.store.tables import LINE, PARTITION
from pipeline.store.times import as_text
from pipeline.store.transaction import Committer, Refused, refusal
from pipeline.store.writes import Effects

Indexed: TypeAlias = list[tuple[int, Entry]]
Write: TypeAlias = Callable[[Connection, Indexed, str, OrderedReport], None]


class OrderedCommitter(Committer):
    """Commits entries of one subscription."""

    def __init__(self, database: Database, subscription: str) -> None:
        super().__init__(database, subscription)
        insert = database.insert(LINE)
        insert = insert.on_conflict_do_update(
            index_elements=[LINE.c.subscription, LINE.c.event_id],
            set_={
                name: insert.excluded[name]
                for name in ("key", "state", "place", "attempt", "redrives", "next_at", "at")
            },
        )
        self._line = rows_statement(LINE, insert, LINE.columns.keys())

    def run(
        self, connection: Connection, entries: Sequence[Entry], epochs: Mapping[str, int], report: OrderedReport
    ) -> None:
        """Commit the entries as far as the database takes them. Raises: StoreUnavailable."""
        indexed = list(enumerate(entries))
        try:
            self._once(connection, indexed, epochs, report, self._all)
            return
        except Refused as refused:
            if len(indexed) == 1:
                self._reject(indexed[0], refused, report)
                return
        try:
            self._once(connection, indexed, epochs, report, self._one_by_one)
        except Refused:
            for each in indexed:
                if self._must_wait(each, entries, report):
                    report.skipped.add(each[0])
                    continue
                try:
                    self._once(connection, [each], epochs, report, self._all)
                except Refused as refused:
                    self._reject(each, refused, report)

    def _once(
        self, connection: Connection, indexed: Indexed, epochs: Mapping[str, int], report: OrderedReport, write: Write
    ) -> None:
        at = as_text(utc_now())
        found = OrderedReport()
        with self._our_part():
            transaction = connection.begin()
        try:
            with self._our_part():
                found.stale = self._stale(connection, {each.partition for _, each in indexed}, epochs)
                live = [(index, each) for index, each in indexed if each.partition not in found.stale]
                first: dict[str, int] = {}
                types: dict[str, str] = {}
                for index, each in live:
                    if each.effects is not None and first.setdefault(each.event_id, index) == index:
                        types[each.event_id] = each.effects.event_type
                fresh = self._database.claim(connection, self._subscription, types, at) if types else set()
            todo = []
            for index, each in live:
                if each.effects is not None and (each.event_id not in fresh or first[each.event_id] != index):
                    found.duplicates.add(index)
                todo.append((index, each))
            write(connection, todo, at, found)
            with self._our_part():
                left = found.skipped | found.rejected.keys()
                undone = {each.event_id for index, each in todo if index in left and index not in found.duplicates}
                if undone & fresh:
                    self._release(connection, dict.fromkeys(undone & fresh, RowRejected("")))
                self._lines(connection, [each for index, each in todo if index not in left], at)
                transaction.commit()
        except Refused:
            transaction.rollback()
            connection.connection.rollback()  # SQLAlchemy sends no ROLLBACK after a COMMIT that failed
            raise
        report.stale |= found.stale
        report.duplicates |= found.duplicates - found.skipped
        report.rejected.update(found.rejected)
        report.skipped |= found.skipped

    def _stale(self, connection: Connection, partitions: set[str], epochs: Mapping[str, int]) -> set[str]:
        """The partitions whose epoch has moved on. Their rows stay locked until the commit: nobody takes them now."""
        columns = (PARTITION.c.partition, PARTITION.c.epoch)
        ours = (PARTITION.c.subscription == self._subscription, PARTITION.c.partition.in_(sorted(partitions)))
        statement = select(*columns).where(*ours).order_by(PARTITION.c.partition).with_for_update()
        now = dict(connection.execute(statement).all())
        return {partition for partition in partitions if now.get(partition) != epochs.get(partition)}

    def _all(self, connection: Connection, indexed: Indexed, at: str, report: OrderedReport) -> None:
        with self._their_part():
            self._write(connection, _effects(indexed, report), at)

    def _one_by_one(self, connection: Connection, indexed: Indexed, at: str, report: OrderedReport) -> None:
        entries = dict(indexed)
        for index, each in indexed:
            if self._must_wait((index, each), entries, report):
                report.skipped.add(index)
                continue
            effects = _effects([(index, each)], report)
            if not effects:
                continue
            savepoint = connection.begin_nested()
            try:
                with self._their_part():
                    self._write(connection, effects, at)
            except Refused as refused:
                with self._their_part():  # there is no savepoint left if the database has rolled back everything
                    savepoint.rollback()
                self._reject((index, each), refused, report)
            else:
                savepoint.commit()

    def _must_wait(
        self, each: tuple[int, Entry], entries: Sequence[Entry] | Mapping[int, Entry], report: OrderedReport
    ) -> bool:
        """Whether an earlier event of its key, or the same event, was left out."""
        index, entry = each
        for left in report.rejected.keys() | report.skipped:
            other = entries[left]
            same_line = other.partition == entry.partition and other.key == entry.key and entry.key is not None
            if left < index and (same_line or other.event_id == entry.event_id):
                return True
        return False

    def _reject(self, each: tuple[int, Entry], refused: Refused, report: OrderedReport) -> None:
        index, entry = each
        assert entry.effects is not None or entry.line is not None
        effects = entry.effects or Effects(entry.event_id, "")
        report.rejected[index] = refusal(effects, refused)

    def _lines(self, connection: Connection, entries: Sequence[Entry], at: str) -> None:
        gone = [each.event_id for each in entries if each.effects is not None and each.had_line]
        if gone:
            self._database.forget(connection, LINE, self._subscription, gone)
        changed = {each.event_id: each for each in entries if each.line is not None}
        if not changed:
            return
        places = self._places(connection, changed.values())
        rows = []
        for event_id, each in changed.items():
            line = each.line
            assert line is not None
            next_at = None if line.next_at is None else as_text(line.next_at)
            rows.append(
                [
                    *(self._subscription, event_id, line.key, line.state, places.get(event_id, 0)),
                    *(line.attempt, line.redrives, next_at, at),
                ]
            )
        self._database.insert_rows(connection, self._line, rows)

    def _places(self, connection: Connection, entries: Iterable[Entry]) -> dict[str, int]:
        """The place of each event that has one or is to have one: as before, or at the end of its key's line."""
        given = list(entries)
        ids = [each.event_id for each in given]
        ours = LINE.c.subscription == self._subscription
        placed = select(LINE.c.event_id, LINE.c.place).where(ours, LINE.c.event_id.in_(ids), LINE.c.place > 0)
        places: dict[str, int] = dict(connection.execute(placed).all())
        holding = [each for each in given if each.holds and each.event_id not in places]
        keys = sorted({each.key for each in holding if each.key is not None})
        if keys:
            ends = select(LINE.c.key, func.max(LINE.c.place)).where(ours, LINE.c.key.in_(keys)).group_by(LINE.c.key)
            last = dict(connection.execute(ends).all())
            for each in holding:
                if each.key is not None:
                    places[each.event_id] = last[each.key] = last.get(each.key, 0) + 1
        return places


def _effects(indexed: Indexed, report: OrderedReport) -> list[Effects]:
    return [each.effects for index, each in indexed if each.effects is not None and index not in report.duplicates]
