"""A store in each kind of place, and a look into its tables that goes past the library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from pipeline.store import Effects, Store, Write
from pipeline.store.producer import ProducerStore
from tests.store.cached import Open, Shop, shop_at
from tests.store.models import TABLES
from tests.store.places import Place, PostgresDatabase, SqliteFile
from tests.support.postgres import Databases, Server
from tests.support.redis import RedisServer

Look: TypeAlias = Callable[..., list[tuple[Any, ...]]]
NUMBERS = count(1)


@pytest.fixture
def sqlite_place(tmp_path: Path) -> SqliteFile:
    return SqliteFile(tmp_path)


@pytest.fixture
def postgres_place(databases: Databases) -> Iterator[PostgresDatabase]:
    """An empty database."""
    with ExitStack() as stack:
        yield PostgresDatabase(stack.enter_context(databases.database()), databases, stack)


@pytest.fixture(scope="session")
def with_tables(databases: Databases) -> Iterator[str]:
    """A database to copy that has the tables already: making them takes longer than most tests."""

    async def make_tables(url: str) -> None:
        store = await Store.open(url, "payments", TABLES)
        await store.close()

    with databases.database() as made:
        asyncio.run(make_tables(made.url))
        made.session.close()  # nobody may be connected to what is copied
        yield made.name


@pytest.fixture
def ready_place(databases: Databases, with_tables: str) -> Iterator[PostgresDatabase]:
    """A database that has the tables."""
    with ExitStack() as stack:
        yield PostgresDatabase(stack.enter_context(databases.database(with_tables)), databases, stack)


@pytest.fixture(scope="session")
def fragile(postgres: Server) -> Iterator[Databases]:
    """Databases of a server that a test may end, and start again, without disturbing others."""
    server = Server(postgres.programs)
    server.start()
    made = Databases(server)
    try:
        yield made
    finally:
        made.close()
        server.remove()


@pytest.fixture
def fragile_place(fragile: Databases) -> Iterator[PostgresDatabase]:
    """An empty database of that server."""
    with ExitStack() as stack:
        yield PostgresDatabase(stack.enter_context(fragile.database()), fragile, stack)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> Place:
    """Where the test's store is to be; tests that use it run once for each kind."""
    found: Place = request.getfixturevalue("sqlite_place" if request.param == "sqlite" else "ready_place")
    return found


@pytest.fixture
def url(place: Place) -> str:
    return place.url


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    opened = await Store.open(place.url, "payments", TABLES)
    yield opened
    await opened.close()


@pytest.fixture
def producer_url(place: Place) -> str:
    """Of the producer's store, in the file or database that `look` looks into."""
    return place.url.replace("{subscription}", "payments")


@pytest.fixture
async def producer(producer_url: str) -> AsyncIterator[ProducerStore]:
    opened = await ProducerStore.open(producer_url)
    yield opened
    await opened.close()


@pytest.fixture
def look(place: Place) -> Look:
    """Rows of a query, or the effect of a statement, through a connection of its own."""
    return place.look


@pytest.fixture
async def opened_shops() -> AsyncIterator[list[Shop]]:
    """Shops to close at the end."""
    shops: list[Shop] = []
    yield shops
    for shop in shops:
        await shop.close()


@pytest.fixture
def open_shop(opened_shops: list[Shop], redis_server: RedisServer) -> Open:
    """A shop at a database; its cache is the test's Redis unless another is named."""

    async def make(url: str, *event_ids: str, cache_url: str = "", **more: Any) -> Shop:
        opened_shops.append(await shop_at(url, cache_url or redis_server.url, *event_ids, **more))
        return opened_shops[-1]

    return make


def effects(*writes: Write, event_id: str = "", **more: Any) -> Effects:
    """Effects of an event; its id is made up when none is given."""
    return Effects(event_id or f"e{next(NUMBERS)}", "order.created", writes, **more)
