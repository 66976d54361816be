"""Results through a real Redis from a real database, while all is well."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest

from pipeline.cache import Cached
from pipeline.cache.server import SERVER_VALUE
from pipeline.store import Effects
from tests.store.cached import Open, processed
from tests.store.places import Place
from tests.support.redis import RedisServer


async def test_two_processes_share_what_one_has_read(place: Place, open_shop: Open, redis_server: RedisServer) -> None:
    # given two gateways with one cache
    one, two = await open_shop(place.url, "a"), await open_shop(place.url)
    # when one has read a result, then the other needs no database for it
    assert await one.ask("a") == Cached(b'"a"', "miss", 0.0)
    assert (await two.ask("a")).state == "hit"
    assert (len(one.queries), len(two.queries)) == (1, 0)
    # in a namespace of the subscription, with an end
    assert redis_server.ask("KEYS", "*") == ["pipeline:payments:a"]
    assert 3600 < redis_server.ask("TTL", "pipeline:payments:a") <= 24 * 3600


async def test_two_hundred_readers_of_a_cold_key_are_one_query(place: Place, open_shop: Open) -> None:
    shop = await open_shop(place.url, "a")
    found = await asyncio.gather(*(shop.ask("a") for _ in range(200)))
    assert found == [Cached(b'"a"', "miss", 0.0)] * 200
    assert len(shop.queries) == 1


async def test_what_is_not_processed_is_asked_again(place: Place, open_shop: Open) -> None:
    shop = await open_shop(place.url)
    assert (await shop.ask("a")).value is None
    await shop.store.commit(processed("a"))
    assert (await shop.ask("a")).value == b'"a"'


async def test_a_wrong_password_is_a_dead_cache_that_says_so(
    place: Place, open_shop: Open, redis_server: RedisServer
) -> None:
    wrong = f"redis://default:wrong-secret@127.0.0.1:{redis_server.port}/0"
    shop = await open_shop(place.url, "a", cache_url=wrong)
    for _ in range(10):
        assert await shop.ask("a") == Cached(b'"a"', "bypass", 0.0)
    ((name, error),) = (await shop.cache.check()).items()
    assert name == f"redis://127.0.0.1:{redis_server.port}/0"
    assert "password" in (error or "")
    assert "wrong-secret" not in (error or "")


async def test_what_others_left_under_a_key_is_not_believed_nor_run(
    place: Place, open_shop: Open, redis_server: RedisServer
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (pytest.fail, ("a pickle of the cache was run",))

    shop = await open_shop(place.url, "a")
    for left in (pickle.dumps(Evil()), b"bytes:" + pickle.dumps(Evil()), b"bytes:{}", b"12", b""):
        await asyncio.to_thread(redis_server.put, "pipeline:payments:a", left)
        assert await shop.ask("a") == Cached(b'"a"', "miss", 0.0)
    await asyncio.to_thread(redis_server.ask, "DEL", "pipeline:payments:a")
    await asyncio.to_thread(redis_server.ask, "RPUSH", "pipeline:payments:a", "a list")
    assert (await shop.ask("a")).value == b'"a"'


async def test_a_result_that_is_too_large_is_read_from_the_database(place: Place, open_shop: Open) -> None:
    shop = await open_shop(place.url)
    await shop.store.commit([Effects("large", "order.created", (), b'"%b"' % (b"x" * SERVER_VALUE))])
    assert (await shop.ask("large")).state == "miss"
    assert (await shop.ask("large")).state == "miss"
    await shop.cache.put_many("payments", {"large": b"1" * SERVER_VALUE, "small": b"1"})
    assert (await shop.ask("large")).state == "miss"
    assert (await shop.ask("small")).state == "hit"
