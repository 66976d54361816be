"""Events and connections that several tests with PostgreSQL use."""

from __future__ import annotations

from typing import Any

from pipeline.store import Store
from tests.store.conftest import effects
from tests.store.models import Account, Payment


def batch(first: int, size: int = 5) -> list[Any]:
    """Events with a payment and an account each."""
    numbers = range(first, first + size)
    return [effects(Payment(order_id=n, customer="x"), Account(id=n, amount=n), event_id=f"b{n}") for n in numbers]


async def driver(store: Store) -> Any:
    """The connection that writes."""
    return await store._database.write(lambda connection: connection.connection.driver_connection)  # noqa: SLF001


async def reading_driver(store: Store) -> Any:
    """A connection that reads."""
    async with store._database.reader.connect() as connection:  # noqa: SLF001
        assert connection.sync_connection is not None
        return connection.sync_connection.connection.driver_connection
