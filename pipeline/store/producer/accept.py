"""Accepting events: many calls, one transaction. In: events of concurrent requests. Out: what became of each of them.

A commit waits for the disk. While one does, the calls that come in gather, and the next commit takes all of them: a
hundred requests at once cost two commits. Several processes may do this in one database.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy import Connection, func, select

from pipeline.errors import OutboxFull, StoreUnavailable
from pipeline.store.database import Database, faults_of
from pipeline.store.moments import now_text, text_of
from pipeline.store.producer.rows import ProducerRows
from pipeline.store.producer.values import Acceptance, NewEvent, check
from pipeline.store.producer_tables import OUTGOING
from pipeline.store.rows import Values

Answer: TypeAlias = list[Acceptance] | OutboxFull

MOST_EVENTS = 2000  # in one transaction, unless one call has more
MOST_BYTES = 16 * 1024 * 1024  # of bodies in one transaction, unless one call has more
RECOUNT = 0.5  # s; what other processes accept or publish meanwhile is not seen


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """One call of `accept`: its events with their fingerprints."""

    events: Sequence[tuple[NewEvent, bytes]]
    size: int  # bytes
    bound: int
    answer: asyncio.Future[list[Acceptance]]


class Acceptor:
    """Accepts events into one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = ProducerRows(database)
        self._calls: list[_Call] = []
        self._committing: asyncio.Task[None] | None = None
        self._waiting = 0  # events in the outbox, when last counted, and ours since
        self._counted = -RECOUNT

    async def accept(self, events: Sequence[NewEvent], bound: int) -> list[Acceptance]:
        """See `ProducerStore.accept`."""
        if not events:
            return []
        check(events)
        pairs = [(event, event.fingerprint) for event in events]
        size = sum(len(event.payload) + len(event.message.body) for event in events)
        call = _Call(pairs, size, bound, asyncio.get_running_loop().create_future())
        self._calls.append(call)
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_all())
        return await call.answer

    async def finish(self) -> None:
        """Wait until no call is under way."""
        if self._committing is not None:
            await asyncio.wait({self._committing})

    async def _commit_all(self) -> None:
        group: list[_Call] = []
        try:
            while self._calls:
                group = self._next()
                if group:
                    await self._commit(group)
        finally:
            self._committing = None
            for call in (*group, *self._calls):  # there are some only if this task was cancelled
                call.answer.cancel()
            self._calls = []

    def _next(self) -> list[_Call]:
        """The calls for the next transaction; who has been cancelled meanwhile wants nothing written."""
        group: list[_Call] = []
        events = size = taken = 0
        for call in self._calls:
            events, size = events + len(call.events), size + call.size
            if group and (events > MOST_EVENTS or size > MOST_BYTES):
                break
            taken += 1
            if not call.answer.done():
                group.append(call)
        self._calls = self._calls[taken:]
        return group

    async def _commit(self, group: list[_Call]) -> None:
        try:
            answers = await self._database.write(lambda connection: self._write(connection, group))
        except Exception as error:  # noqa: BLE001 - each caller hears of it
            self._counted = time.monotonic() - RECOUNT
            if len(group) > 1 and not isinstance(error, StoreUnavailable):
                for call in group:  # one of them is at fault, the others are not
                    await self._commit([call])
                return
            for call in group:
                if not call.answer.done():
                    call.answer.set_exception(error)
            return
        for call, answer in zip(group, answers, strict=True):
            if call.answer.done():
                continue
            if isinstance(answer, OutboxFull):
                call.answer.set_exception(answer)
            else:
                call.answer.set_result(answer)

    def _write(self, connection: Connection, group: Sequence[_Call]) -> list[Answer]:
        with faults_of(self._database), connection.begin():
            known = self._rows.known(connection, [event.id for call in group for event, _ in call.events])
            waiting = self._count(connection, max(call.bound for call in group))
            answers: list[Answer] = []
            accepted: dict[str, NewEvent] = {}
            for call in group:
                answer, new = _compare(call, known)
                if new and waiting + len(new) > call.bound:
                    answers.append(OutboxFull(waiting, call.bound))
                    continue
                answers.append(answer)
                waiting += len(new)
                accepted |= {event_id: event for event_id, (event, _) in new.items()}
                known |= {event_id: fingerprint for event_id, (_, fingerprint) in new.items()}
            if accepted:
                late = self._insert(connection, accepted, known)
                if late:  # another process has accepted them at the same time, and was first
                    theirs = self._rows.known(connection, list(late))
                    for call, each in zip(group, answers, strict=True):
                        _correct(call, each, {event_id: theirs.get(event_id, known[event_id]) for event_id in late})
        self._waiting = waiting
        return answers

    def _insert(self, connection: Connection, events: dict[str, NewEvent], prints: dict[str, bytes]) -> set[str]:
        """Write the events and what is to be published of them; the ids of those that were there after all."""
        at = now_text()
        rows: list[Values] = [
            [
                *(event.id, event.type, event.source, event.subject, text_of(event.time), event.payload.decode()),
                *(Acceptance.ACCEPTED.value, prints[event.id], at),
            ]
            for event in events.values()
        ]
        fresh = self._rows.insert_events(connection, rows)
        messages = [(event.id, event.message) for event in events.values() if event.id in fresh]
        outgoing: list[Values] = [
            [event_id, each.exchange, each.routing_key, each.body, each.properties, at] for event_id, each in messages
        ]
        if outgoing:
            self._rows.insert_outgoing(connection, outgoing)
        return events.keys() - fresh

    def _count(self, connection: Connection, bound: int) -> int:
        """How many events wait, about. Counted one by one only when there are gaps: where some wait for long."""
        now = time.monotonic()
        if now - self._counted < RECOUNT:
            return self._waiting
        first = select(func.min(OUTGOING.c.seq)).scalar_subquery()
        last = select(func.max(OUTGOING.c.seq)).scalar_subquery()
        ((low, high),) = connection.execute(select(first, last)).all()
        waiting = 0 if low is None else high - low + 1
        if waiting > bound:
            some = select(OUTGOING.c.seq).limit(bound + 1).subquery()
            waiting = connection.execute(select(func.count()).select_from(some)).scalar_one()
        self._counted = now
        return int(waiting)


def _compare(call: _Call, known: dict[str, bytes]) -> tuple[list[Acceptance], dict[str, tuple[NewEvent, bytes]]]:
    """What each event is, given the fingerprints that are known, and those that are new."""
    answer: list[Acceptance] = []
    new: dict[str, tuple[NewEvent, bytes]] = {}
    for event, fingerprint in call.events:
        before = known.get(event.id) or (new[event.id][1] if event.id in new else None)
        if before is None:
            new[event.id] = event, fingerprint
            answer.append(Acceptance.ACCEPTED)
        else:
            answer.append(Acceptance.REPEATED if before == fingerprint else Acceptance.CONFLICT)
    return answer, new


def _correct(call: _Call, answer: Answer, theirs: dict[str, bytes]) -> None:
    if isinstance(answer, OutboxFull):
        return
    for place, (event, fingerprint) in enumerate(call.events):
        if event.id in theirs:
            same = theirs[event.id] == fingerprint
            answer[place] = Acceptance.REPEATED if same else Acceptance.CONFLICT
