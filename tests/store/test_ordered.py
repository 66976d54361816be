"""The store of an ordered subscription: who may commit, in which order, and what is remembered of failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pipeline.store import Effects, Store
from pipeline.store.ordered.lines import Entry, LineRow
from pipeline.store.ordered.store import OrderedStore
from tests.store.conftest import Look
from tests.store.models import TABLES, Deferred, Ledger, Payment
from tests.store.places import Place

NOTHING: Any = None


@pytest.fixture
def ordered(store: Store) -> OrderedStore:
    return store.ordered()


@pytest.fixture
async def other(place: Place) -> AsyncIterator[OrderedStore]:
    """The same database, as another process sees it."""
    opened = await Store.open(place.url, "payments", TABLES)
    yield opened.ordered()
    await opened.close()


def paid(number: int, key: str = "a", row: object = None, had_line: bool = False) -> Entry:
    """An event that writes a row."""
    written = row if row is not None else Ledger(text=f"{key}{number}")
    effects = Effects(f"{key}{number}", "paid", (written,))  # type: ignore[arg-type] # some are wrong on purpose
    return Entry("p.0", key, f"{key}{number}", effects, None, had_line)


def failed(number: int, key: str = "a", state: str = "dead", holds: bool = True) -> Entry:
    """An event that failed."""
    row = LineRow(f"{key}{number}", key, state, 1)  # type: ignore[arg-type]
    return Entry("p.0", key, f"{key}{number}", None, row, False, holds)


def rows(look: Look) -> list[str]:
    """The rows written, in their order."""
    return [text for (text,) in look("SELECT text FROM ledger ORDER BY id")]


async def test_who_was_overtaken_commits_no_more(ordered: OrderedStore, other: OrderedStore, look: Look) -> None:
    # Given a process that owns a partition, and has handled two events
    ours = await ordered.take("p.0", "me")
    await ordered.commit([paid(1)], {"p.0": ours})

    # When another takes it, without the first one's knowledge
    theirs = await other.take("p.0", "somebody else")
    late = await ordered.commit([paid(2)], {"p.0": ours})
    good = await other.commit([paid(2), paid(3)], {"p.0": theirs})

    # Then the first one's batch is left out as a whole, and nothing of it is in the inbox
    assert theirs == ours + 1
    assert late.stale == {"p.0"}
    assert not good.stale | good.duplicates
    assert rows(look) == ["a1", "a2", "a3"]


async def test_only_what_was_overtaken_is_left_out(ordered: OrderedStore, other: OrderedStore, look: Look) -> None:
    epochs = {"p.0": await ordered.take("p.0", "me"), "p.1": await ordered.take("p.1", "me")}
    await other.take("p.1", "somebody else")
    elsewhere = Entry("p.1", "b", "b1", Effects("b1", "paid", (Ledger(text="b1"),)))

    report = await ordered.commit([paid(1), elsewhere], epochs)

    assert report.stale == {"p.1"}
    assert rows(look) == ["a1"]


async def test_taking_and_committing_at_once_never_mix(ordered: OrderedStore, other: OrderedStore, look: Look) -> None:
    """A take waits for the commit under way, or makes it stale; there is nothing between."""
    for number in range(20):
        epoch = await ordered.take("p.0", "me")
        report, theirs = await asyncio.gather(
            ordered.commit([paid(number)], {"p.0": epoch}), other.take("p.0", "somebody else")
        )
        again = await other.commit([paid(number)], {"p.0": theirs})
        assert bool(report.stale) != bool(again.duplicates)
    assert rows(look) == [f"a{number}" for number in range(20)]


@pytest.mark.parametrize("refused", [Payment(order_id=1, customer=NOTHING), Deferred(id=1, zoo_id=99)])
async def test_nothing_of_a_key_passes_a_refused_event(ordered: OrderedStore, look: Look, refused: object) -> None:
    # Given a batch in which the second event of a key is refused, at once or by the COMMIT
    epochs = {"p.0": await ordered.take("p.0", "me")}
    batch = [paid(1), paid(2, row=refused), paid(1, "b"), paid(3), failed(4), paid(2, "b")]

    report = await ordered.commit(batch, epochs)

    # Then what follows it of its key is left out, rows and lines, and the other key goes on
    assert set(report.rejected) == {1}
    assert report.skipped == {3, 4}
    assert rows(look) == ["a1", "b1", "b2"]
    assert await ordered.lines() == {}
    # And all of it can be committed later
    again = await ordered.commit([paid(2), paid(3), failed(4)], epochs)
    assert (again.rejected, again.duplicates) == ({}, set())
    assert rows(look) == ["a1", "b1", "b2", "a2", "a3"]


async def test_an_event_twice_in_a_batch_counts_once(ordered: OrderedStore, look: Look) -> None:
    epochs = {"p.0": await ordered.take("p.0", "me")}

    report = await ordered.commit([paid(1), paid(1), paid(2)], epochs)

    assert report.duplicates == {1}
    assert rows(look) == ["a1", "a2"]


async def test_a_parked_key_has_a_line_in_order(ordered: OrderedStore) -> None:
    # Given a dead letter and two events that wait behind it, beside one that holds nobody up
    epochs = {"p.0": await ordered.take("p.0", "me")}
    await ordered.commit([failed(1), failed(1, "b", holds=False)], epochs)
    await ordered.commit([failed(2, state="parked"), failed(3, state="parked")], epochs)
    assert await ordered.first_in_line("a") == "a1"
    assert await ordered.first_in_line("b") is None
    assert await ordered.parked_keys() == {"a": 3}

    # When it dies again, it keeps its place
    await ordered.commit([failed(1)], epochs)
    assert await ordered.first_in_line("a") == "a1"

    # When it is processed, and the next is discarded
    await ordered.commit([paid(1, had_line=True)], epochs)
    assert await ordered.first_in_line("a") == "a2"
    await ordered.forget_lines(["a2"])

    # Then the last one is first, and after it the key is free
    assert await ordered.first_in_line("a") == "a3"
    await ordered.commit([paid(3, had_line=True)], epochs)
    assert await ordered.first_in_line("a") is None
    assert set(await ordered.lines()) == {"b1"}
