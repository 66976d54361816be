"""Redis or the database fails: reads go on, few of them wait, and all is as before when it is back."""

from __future__ import annotations

import asyncio
import time

import pytest

from pipeline.cache.server import FAILURES
from pipeline.errors import StoreUnavailable
from tests.store.cached import BATCH, READERS, Open
from tests.store.places import PostgresDatabase, SqliteFile
from tests.support.proxy import proxy_to
from tests.support.redis import RedisServer
from tests.support.topologies import until

PAUSE = 0.4  # s between probes of a dead cache, here


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cache.server.PAUSE", PAUSE)


@pytest.fixture
def ids() -> list[str]:
    return [f"order-{number}" for number in range(40)]


async def test_redis_is_killed_in_the_middle_of_reads_and_comes_back(
    sqlite_place: SqliteFile, open_shop: Open, redis_server: RedisServer, ids: list[str]
) -> None:
    # given readers who are served by the cache
    shop = await open_shop(sqlite_place.url, *ids)
    await shop.ask_many(ids)
    assert {each.state for each in await shop.ask_many(ids)} == {"hit"}

    # when it is killed while they read, then no read fails
    before = shop.cache.calls()
    reading = asyncio.create_task(shop.ask_many(ids, reads=20 * BATCH))
    while shop.cache.calls() < before + BATCH:  # noqa: ASYNC110 - no later than that: they take a moment only
        await asyncio.sleep(0)
    await asyncio.to_thread(redis_server.kill)
    assert {each.state for each in await reading} >= {"hit", "bypass"}
    assert "bypass" in {each.state for each in await shop.ask_many(ids)}

    # and the dead cache is left alone: a breaker lets through no more than a probe a pause
    calls, began = shop.cache.calls(), time.monotonic()
    found = await shop.ask_many(ids, reads=2 * BATCH)
    assert {each.state for each in found} == {"bypass"}
    assert shop.cache.calls() - calls <= 1 + (time.monotonic() - began) / PAUSE
    (error,) = (await shop.cache.check()).values()
    assert error is not None
    assert redis_server.password not in error

    # when it is back, empty, then it fills by itself
    await asyncio.to_thread(redis_server.start)

    async def served() -> bool:
        return {each.state for each in await shop.ask_many(ids)} == {"hit"}

    await until(served, "the cache to be full again")
    assert list((await shop.cache.check()).values()) == [None]


async def test_a_black_hole_costs_a_few_calls_their_patience_and_no_read_its_answer(
    sqlite_place: SqliteFile, open_shop: Open, redis_server: RedisServer, ids: list[str]
) -> None:
    # given a cache that holds its connections and answers nothing
    shop = await open_shop(sqlite_place.url, *ids)
    await shop.ask_many(ids)
    redis_server.freeze()
    calls, began = shop.cache.calls(), time.monotonic()

    # when there are many reads, then all are answered by the database
    found = await shop.ask_many(ids, reads=2 * BATCH)
    assert {each.state for each in found} == {"bypass"}
    # and few of them have waited: those under way before it was known, and probes
    assert shop.cache.calls() - calls <= READERS + FAILURES + 1 + (time.monotonic() - began) / PAUSE
    assert list((await shop.cache.check()).values()) != [None]

    # when it answers again, then it is used again
    redis_server.thaw()

    async def served() -> bool:
        return {each.state for each in await shop.ask_many(ids)} == {"hit"}

    await until(served, "hits")


FULL = ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "maxmemory")
REPLICA = ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "read only replica")


@pytest.mark.parametrize(("begin", "end", "words"), [FULL, REPLICA], ids=["full", "read-only"])
async def test_a_cache_that_takes_nothing_more_still_serves_what_it_has(
    sqlite_place: SqliteFile,
    open_shop: Open,
    redis_server: RedisServer,
    ids: list[str],
    begin: str,
    end: str,
    words: str,
) -> None:
    # given a cache with one result that refuses to take others
    shop = await open_shop(sqlite_place.url, *ids)
    await shop.ask("order-0")
    redis_server.ask(*begin.split())

    # when others are read, then they come from the database, and the breaker spares the writes
    await shop.ask_many(ids)
    calls, began = shop.cache.calls(), time.monotonic()
    assert {each.state for each in await shop.ask_many(ids[1:])} == {"miss"}
    assert (await shop.ask("order-0")).state == "hit"
    probes = 1 + (time.monotonic() - began) / PAUSE
    assert shop.cache.calls() - calls <= BATCH + 1 + probes  # a look each, and writes as probes only
    # and it counts as down
    (error,) = (await shop.cache.check()).values()
    assert words in (error or "")

    # when it takes them again, then it fills
    redis_server.ask(*end.split())

    async def served() -> bool:
        return {each.state for each in await shop.ask_many(ids)} == {"hit"}

    await until(served, "hits")
    assert list((await shop.cache.check()).values()) == [None]


async def test_postgresql_ends_and_results_are_served_though_old(
    fragile_place: PostgresDatabase, open_shop: Open, ids: list[str]
) -> None:
    # given results that were read, and count as old at once
    server = fragile_place.databases.server
    shop = await open_shop(fragile_place.url, *ids, fresh_for=0.0)
    assert {each.state for each in await shop.ask_many(ids)} == {"miss"}

    # when the server ends, then they are served, marked, with their age
    await asyncio.to_thread(server.stop)
    found = await shop.ask_many(ids)
    assert {each.state for each in found} == {"stale"}
    assert all(0 < each.age < 600 for each in found)
    # and what nobody has read is an error that says whose
    with pytest.raises(StoreUnavailable):
        await shop.ask("order-unknown")

    # when it is back, then they are read from it again
    await asyncio.to_thread(server.start)

    async def fresh() -> bool:
        return {each.state for each in await shop.ask_many(ids)} == {"miss"}

    await until(fresh, "reads from the database")


async def test_postgresql_answers_nothing_and_results_are_served_though_old(
    ready_place: PostgresDatabase, open_shop: Open, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.cache.results.PATIENCE", 0.5)
    async with proxy_to(ready_place.url) as proxy:
        # given results that were read through a connection that has become a black hole
        away = proxy.url.replace("amqp://", "postgresql://")
        shop = await open_shop(away, *ids, fresh_for=0.0)
        await shop.ask_many(ids)
        proxy.stall()

        # when many are read, then all are served, and few of them have waited for the database
        asked = len(shop.queries)
        began = time.monotonic()
        assert {each.state for each in await shop.ask_many(ids)} == {"stale"}
        assert len(shop.queries) - asked <= READERS + 1 + (time.monotonic() - began)

        # when it answers again, then they are read from it
        proxy.cut()
        proxy.resume()

        async def fresh() -> bool:
            return {each.state for each in await shop.ask_many(ids)} == {"miss"}

        await until(fresh, "reads from the database")
