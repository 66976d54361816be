"""Whatever the batches, the outcome is as if the events had come one by one: checked against a model."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update
from sqlmodel import col

from pipeline.store import Effects, Store, Upsert, Write
from tests.store.conftest import Look
from tests.store.models import TABLES, Account, Ledger

# A write as plain data: what it does, then its values.
Step: TypeAlias = tuple[Any, ...]
KEYS = st.integers(1, 4)
AMOUNTS = st.sampled_from([None, -1, 0, 1, 2])  # None and -1 are refused
STEPS = st.one_of(
    st.tuples(st.just("insert"), KEYS, AMOUNTS, st.sampled_from([None, 7])),
    st.tuples(st.just("upsert"), KEYS, st.fixed_dictionaries({}, optional={"amount": AMOUNTS, "limit": AMOUNTS})),
    st.tuples(st.just("add"), st.integers(-2, 2)),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("text"), st.sampled_from(["a", "b", "c", None])),
)
EVENTS = st.tuples(st.integers(0, 12), st.lists(STEPS, max_size=3))
BATCHES = st.lists(st.lists(EVENTS, max_size=12), min_size=1, max_size=3)


class Refused(Exception):
    """The model's constraint."""


@dataclass
class Model:
    """What the database is to hold, and how each event ended, when they come one by one."""

    accounts: dict[int, tuple[int, int | None]] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    done: set[str] = field(default_factory=set)

    def process(self, event_id: str, steps: list[Step]) -> str:
        """Apply an event whole or not at all."""
        if event_id in self.done:
            return "duplicate"
        before = dict(self.accounts), list(self.texts)
        try:
            for step in steps:
                self.apply(step)
        except Refused:
            self.accounts, self.texts = before
            return "rejected"
        self.done.add(event_id)
        return "processed"

    def apply(self, step: Step) -> None:
        """One write."""
        match step:
            case "insert", key, amount, limit:
                refuse(key in self.accounts or not valid(amount))
                self.accounts[key] = amount, limit
            case "upsert", key, columns:
                # Column constraints are checked before the conflict, on the row as it would be inserted.
                new = {**dict(zip(("amount", "limit"), self.accounts.get(key, (None, None)), strict=True)), **columns}
                refuse(not valid(new["amount"]))
                self.accounts[key] = new["amount"], new["limit"]
            case "add", number:
                refuse(any(amount + number < 0 for amount, _ in self.accounts.values()))
                self.accounts = {key: (amount + number, limit) for key, (amount, limit) in self.accounts.items()}
            case "delete", key:
                self.accounts.pop(key, None)
            case "text", text:
                refuse(text is None or text in self.texts)
                self.texts.append(text)


def valid(amount: int | None) -> bool:
    return amount is not None and amount >= 0


def refuse(condition: bool) -> None:
    if condition:
        raise Refused


def write(step: Step) -> Write:
    """The step as a handler would return it."""
    match step:
        case "insert", key, amount, limit:
            return Account(id=key, amount=amount, limit=limit)
        case "upsert", key, columns:
            return Upsert(Account(id=key, **columns))
        case "add", number:
            return update(Account).values(amount=Account.amount + number)
        case "delete", key:
            return delete(Account).where(col(Account.id) == key)
        case "text", text:
            return Ledger(text=text)
    raise AssertionError(step)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as running:
        yield running


@dataclass(frozen=True, slots=True)
class Shared:
    """One store for all examples, which is emptied before each: opening one takes longer than an example."""

    store: Store
    look: Look

    def empty(self) -> None:
        for table in ("account", "ledger", "pipeline_inbox"):
            self.look(f"DELETE FROM {table}")  # noqa: S608


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared(
    request: pytest.FixtureRequest, runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shared]:
    with ExitStack() as stack:
        if request.param == "sqlite":
            path = tmp_path_factory.mktemp("model") / "x.db"
            url = f"sqlite+aiosqlite:///{path}"
        else:
            database = stack.enter_context(request.getfixturevalue("databases").database())
            url = database.url
        store = runner.run(Store.open(url, "x", TABLES))
        stack.callback(lambda: runner.run(store.close()))
        if request.param == "sqlite":
            connection = stack.enter_context(closing(sqlite3.connect(path, isolation_level=None)))
            yield Shared(store, lambda sql: connection.execute(sql).fetchall())
        else:
            yield Shared(store, database.session.run)


@settings(max_examples=100, deadline=None)
@given(batches=BATCHES)
def test_batches_end_as_events_one_by_one(
    batches: list[list[tuple[int, list[Step]]]], runner: asyncio.Runner, shared: Shared
) -> None:
    shared.empty()
    model = Model()
    for batch in batches:
        # given what each event of the batch does alone, the first of each id
        first = {f"e{number}": steps for number, steps in reversed(batch)}
        order = list(dict.fromkeys(f"e{number}" for number, _ in batch))
        outcome = {event_id: model.process(event_id, first[event_id]) for event_id in order}

        # when the store commits them together
        report = runner.run(
            shared.store.commit([Effects(f"e{n}", "t", [write(step) for step in steps]) for n, steps in batch])
        )

        # then every event ends the same way, and the tables hold the same
        again = {f"e{n}" for n, _ in batch if [m for m, _ in batch].count(n) > 1}
        assert report.processed == [event_id for event_id in order if outcome[event_id] == "processed"]
        assert set(report.rejected) == {event_id for event_id in order if outcome[event_id] == "rejected"}
        assert report.duplicates == again | {key for key in order if outcome[key] == "duplicate"}
        rows = shared.look('SELECT id, amount, "limit" FROM account')
        assert {key: (amount, limit) for key, amount, limit in rows} == model.accounts
        assert [text for (text,) in shared.look("SELECT text FROM ledger ORDER BY id")] == model.texts
        assert {key for (key,) in shared.look("SELECT event_id FROM pipeline_inbox")} == model.done
