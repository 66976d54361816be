"""What a handler's query gives: what is committed, and nothing but reading."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, func, insert, select, text, union_all, update
from sqlalchemy.exc import DBAPIError
from sqlmodel import col
from sqlmodel import select as sqlmodel_select

from pipeline.errors import HandlerError
from pipeline.store import Store, Upsert
from tests.store.conftest import effects
from tests.store.models import Animal, Missing, Payment, Zoo


@pytest.fixture
async def filled(store: Store) -> Store:
    """A store with two payments."""
    await store.commit([effects(Payment(order_id=1, customer="ann", amount=2.0), Payment(order_id=2, customer="bob"))])
    return store


async def test_one_thing_selected_gives_values_and_several_give_rows(filled: Store) -> None:
    # given queries for a column, an aggregate, rows of a table class, and several columns
    by_key = col(Payment.order_id)

    # when they are run, then each gives what a handler would expect
    assert await filled.query(select(col(Payment.customer)).order_by(by_key)) == ["ann", "bob"]
    assert await filled.query(select(func.sum(Payment.amount))) == [2.0]
    assert await filled.query(union_all(select(by_key), select(by_key)).order_by("order_id")) == [1, 1, 2, 2]
    assert await filled.query(select(col(Payment.customer), by_key).order_by(by_key)) == [("ann", 1), ("bob", 2)]
    for statement in (select(Payment), sqlmodel_select(Payment)):
        found = await filled.query(statement.where(by_key == 2))
        assert [type(payment) for payment in found] == [Payment]
        assert (found[0].customer, found[0].amount) == ("bob", 0.0)
    assert await filled.query(select(Payment).where(by_key == 99)) == []


async def test_a_row_that_was_read_can_be_changed_and_upserted(filled: Store) -> None:
    # given a payment that a handler reads and changes, and that another event changes meanwhile
    (payment,) = await filled.query(select(Payment).where(col(Payment.order_id) == 1))
    payment.note = "seen"
    await filled.commit([effects(update(Payment).values(amount=7.0))])

    # when it is upserted
    report = await filled.commit([effects(Upsert(payment))])

    # then just what the handler changed is set
    assert report.rejected == {}
    (now,) = await filled.query(select(Payment).where(col(Payment.order_id) == 1))
    assert (now.customer, now.amount, now.note) == ("ann", 7.0, "seen")


@pytest.mark.parametrize(
    "statement",
    [
        insert(Payment).values(order_id=3, customer="x"),
        update(Payment).values(customer="x"),
        delete(Payment),
        text("DELETE FROM payment"),
        text("DELETE FROM payment RETURNING order_id").columns(),
    ],
)
async def test_writing_is_refused(filled: Store, statement: Any) -> None:
    with pytest.raises(HandlerError, match="a handler's query may only read; return insert"):
        await filled.query(statement)

    assert await filled.query(select(func.count()).select_from(Payment)) == [2]


async def test_a_wrong_query_is_the_handlers_own_error(filled: Store) -> None:
    with pytest.raises(DBAPIError, match=r'no such table: missing|relation "missing" does not exist'):
        await filled.query(select(Missing))

    assert len(await filled.query(select(Payment))) == 2


async def test_a_query_does_not_see_the_running_batch(filled: Store) -> None:
    # given rows that a batch refers to
    await filled.commit([effects(Zoo(id=1), Animal(id=1, zoo_id=1))])

    # when two tables are joined, then rows of both come back, as far as they are committed
    joined = await filled.query(select(Zoo, Animal).join(Animal, col(Animal.zoo_id) == col(Zoo.id)))
    assert [(zoo.id, animal.id) for zoo, animal in joined] == [(1, 1)]
