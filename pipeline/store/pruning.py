"""Removes old rows of one database while others work in it. In: a target, what is meant. Out: what was found, removed.

A table is walked in the order of a key, a slice of it at a time: no statement reads or locks more than a slice, and no
table needs an index by time, which each event would have to pay for. The look finds the slices that hold old rows, by
connections that only read; removing then goes through those alone, a transaction each, and rests as long as each took:
at least half the time the database is the workers'. Each transaction counts for itself, so it can end at any moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from sqlalchemy import Connection, Delete, Select, case, delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.elements import ColumnElement

from pipeline.store.database import Database, faults_of
from pipeline.store.migrating import Target, state
from pipeline.store.opening import database_at
from pipeline.store.retention import RULES, Rule
from pipeline.store.revisions import WORKER, Condition
from pipeline.store.schema import create_missing, create_producer

SLICE = 2000  # rows
LONGEST_REST = 5.0  # seconds
# PostgreSQL's planner takes a table that it knows little of from end to end. In the order of an index, rows are locked
# in the order that workers lock them in.
BY_INDEX = "SELECT set_config('enable_seqscan', 'off', {local}), set_config('enable_bitmapscan', 'off', {local})"

Slice: TypeAlias = tuple[str | None, str]  # positions: behind the first, up to the second
Watch: TypeAlias = Callable[[int], None]  # so many rows more were looked at


@dataclass(frozen=True, slots=True)
class Old:
    """What one rule found for one subscription: `old` of `rows`, in `slices`."""

    rule: Rule
    subscription: str
    rows: int
    old: int
    slices: tuple[Slice, ...]


async def look(target: Target, what: Sequence[str], before: datetime, watch: Watch) -> list[Old]:
    """Find what is older than that, for each subscription the target serves; nothing is changed.

    A database without tables has nothing, and none are made. Raises: ConfigurationError, StoreUnavailable.
    """
    if (await state(target)).condition is Condition.EMPTY:
        return []
    database = _opened(target)
    try:
        with faults_of(database):
            async with database.reader.connect() as connection:
                if connection.dialect.name == "postgresql":
                    await connection.execute(text(BY_INDEX.format(local="false")))
                return [
                    await _find(connection, rule, subscription, before, watch)
                    for subscription in (target.serves if target.family is WORKER else ("",))
                    for rule in _rules(target, what)
                ]
    finally:
        await database.close()


async def remove(target: Target, found: Sequence[Old], before: datetime, watch: Callable[[Old, int], None]) -> None:
    """Remove what `look` found; `watch` is told of which so many rows more went.

    What meanwhile is no longer old stays. Whatever is raised or cancels it, each slice is removed or it is not.

    Raises: ConfigurationError, StoreUnavailable.
    """
    if not any(each.slices for each in found):
        return
    database = _opened(target)
    try:
        for each in found:
            for piece in each.slices:
                began = time.monotonic()
                watch(each, await _remove(database, each, piece, before))
                await asyncio.sleep(min(time.monotonic() - began, LONGEST_REST))
    finally:
        await database.close()


def _rules(target: Target, what: Sequence[str]) -> Iterator[Rule]:
    return (rule for rule in RULES if rule.family is target.family and rule.what in what)


def _opened(target: Target) -> Database:
    def prepare(connection: Connection, place: str) -> None:
        if target.family is WORKER:
            create_missing(connection, [], place)
        else:
            create_producer(connection, place)

    return database_at(target.url, target.name, prepare)


async def _find(connection: AsyncConnection, rule: Rule, subscription: str, before: datetime, watch: Watch) -> Old:
    after: str | None = None
    rows = old = 0
    slices: list[Slice] = []
    while True:
        upto = (await connection.execute(end_of_slice(rule, subscription, before, after))).scalar_one()
        if upto is None:
            return Old(rule, subscription, rows, old, tuple(slices))
        here, old_here = (await connection.execute(counted(rule, subscription, before, (after, upto)))).one()
        rows, old = rows + here, old + old_here
        if old_here:
            slices.append((after, upto))
        watch(here)
        after = upto


async def _remove(database: Database, found: Old, piece: Slice, before: datetime) -> int:
    statement = deletion(found.rule, found.subscription, before, piece)

    def run(connection: Connection) -> int:
        with faults_of(database), connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(text(BY_INDEX.format(local="true")))
            return connection.execute(statement).rowcount

    return await database.write(run)


def end_of_slice(rule: Rule, subscription: str, before: datetime, after: str | None) -> Select[Any]:
    """The statement that finds the last position of the slice behind `after`; NULL when there is none."""
    ahead = select(rule.position.label("position")).where(*rule.scope(subscription, before), *_behind(rule, after))
    some = ahead.order_by(rule.position).limit(SLICE).subquery()
    return select(func.max(some.c.position))


def counted(rule: Rule, subscription: str, before: datetime, piece: Slice) -> Select[int, int]:
    """The statement that counts the rows of a slice, and the old ones among them."""
    counts = select(func.count(), func.count(case((rule.old(before), 1)))).select_from(rule.table)
    return counts.where(*rule.scope(subscription, before), *_between(rule, *piece))


def deletion(rule: Rule, subscription: str, before: datetime, piece: Slice) -> Delete:
    """The statement that removes the old rows of a slice."""
    return delete(rule.table).where(*rule.scope(subscription, before), *_between(rule, *piece), rule.old(before))


def _behind(rule: Rule, after: str | None) -> list[ColumnElement[bool]]:
    return [] if after is None else [rule.position > after]


def _between(rule: Rule, after: str | None, upto: str) -> list[ColumnElement[bool]]:
    # Where several rows share a position, all of the last one are in the slice.
    return [*_behind(rule, after), rule.position <= upto]
