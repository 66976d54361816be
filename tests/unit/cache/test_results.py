"""The policy, with the process's own memory as the cache: what is loaded, what is served, how old it may be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from pipeline.cache import AfterCommit, Cached, ResultCache
from pipeline.cache.server import MEMORY_ENTRIES, MEMORY_VALUE
from pipeline.errors import ConfigurationError, StoreUnavailable
from pipeline.settings import load_settings


class Database:
    """Where results are loaded from; it can be away, and slow."""

    def __init__(self, **results: bytes) -> None:
        self.results = results
        self.away = False
        self.open = asyncio.Event()
        self.open.set()
        self.queries = 0

    async def load(self, key: str) -> bytes | None:
        self.queries += 1
        await self.open.wait()
        if self.away:
            raise StoreUnavailable("it is away")
        return self.results.get(key)


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_764_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def cache(clock: Clock) -> AsyncIterator[ResultCache]:
    made = ResultCache.open(load_settings({}), fresh_for=60, keep_for=3600, clock=clock)
    yield made
    await made.close()


async def ask(cache: ResultCache, database: Database, key: str = "a", subscription: str = "payments") -> Cached:
    return await cache.get(subscription, key, lambda: database.load(key))


async def test_a_result_is_loaded_once_while_it_is_fresh(cache: ResultCache, clock: Clock) -> None:
    # given a result that was loaded
    database = Database(a=b'"one"')
    assert await ask(cache, database) == Cached(b'"one"', "miss", 0.0)

    # when it is asked for within a minute, then it is a hit, with its age
    clock.now += 59
    assert await ask(cache, database) == Cached(b'"one"', "hit", 59.0)
    assert database.queries == 1

    # and after that it is loaded again, and fresh again
    clock.now += 1
    assert await ask(cache, database) == Cached(b'"one"', "miss", 0.0)
    clock.now += 1
    assert (await ask(cache, database)).state == "hit"
    assert database.queries == 2


async def test_nothing_is_not_kept(cache: ResultCache) -> None:
    # given an event that is not processed yet
    database = Database()
    assert await ask(cache, database) == Cached(None, "miss", 0.0)
    # when it is, then the next one who asks is told
    database.results["a"] = b"1"
    assert (await ask(cache, database)).value == b"1"


async def test_each_subscription_has_its_own(cache: ResultCache) -> None:
    await cache.put_many("payments", {"a": b"1"})
    await cache.put_many("shipping", {"a": b"2"})
    nowhere = Database()
    assert (await ask(cache, nowhere)).value == b"1"
    assert (await ask(cache, nowhere, subscription="shipping")).value == b"2"
    assert (await ask(cache, nowhere, subscription="payments:a")).value is None
    assert nowhere.queries == 1


async def test_a_result_that_is_gone_from_the_database_goes_from_the_cache(cache: ResultCache, clock: Clock) -> None:
    database = Database(a=b"1")
    await ask(cache, database)
    database.results.clear()
    clock.now += 60
    assert (await ask(cache, database)).value is None
    database.away = True
    with pytest.raises(StoreUnavailable):
        await ask(cache, database)


async def test_while_the_database_is_away_old_results_are_served_and_marked(cache: ResultCache, clock: Clock) -> None:
    # given an old result, and a database that is away
    database = Database(a=b"1")
    await ask(cache, database)
    clock.now += 100
    database.away = True

    # when it is asked for, then it comes, marked, with its age; and the database is not asked each time
    for _ in range(50):
        assert await ask(cache, database) == Cached(b"1", "stale", 100.0)
    assert database.queries == 2

    # and what the cache does not have is an error that says whose
    with pytest.raises(StoreUnavailable, match="away"):
        await ask(cache, database, "b")


async def test_a_database_that_does_not_answer_is_not_waited_for_long(
    cache: ResultCache, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.cache.results.PATIENCE", 0.05)
    database = Database(a=b"1")
    await ask(cache, database)
    clock.now += 100
    database.open.clear()
    async with asyncio.timeout(20):
        assert (await ask(cache, database)).state == "stale"
        assert (await ask(cache, database)).state == "stale"
    assert database.queries == 2


async def test_a_stampede_is_one_query(cache: ResultCache) -> None:
    # given 200 who ask for the same cold key at once
    database = Database(a=b"1")
    database.open.clear()
    asking = [asyncio.create_task(ask(cache, database)) for _ in range(200)]
    other = asyncio.create_task(ask(cache, database, "b"))
    await asyncio.sleep(0)

    # when the first of them goes away, and the database answers
    await asyncio.sleep(0.01)
    asking[0].cancel()
    database.open.set()
    found = await asyncio.gather(*asking, return_exceptions=True)

    # then one query served all the others
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [Cached(b"1", "miss", 0.0)] * 199
    assert (await other).value is None
    assert database.queries == 2


async def test_a_worker_goes_before_a_reader(cache: ResultCache) -> None:
    # given a reader that has asked the database for an old value
    database = Database(a=b'"old"')
    database.open.clear()
    reading = asyncio.create_task(ask(cache, database))
    await asyncio.sleep(0.01)
    # when a worker puts a new one before the answer comes, then the old one does not take its place
    await cache.put_many("payments", {"a": b'"new"'})
    database.open.set()
    await reading
    assert (await ask(cache, database)).value == b'"new"'


async def test_an_error_reaches_all_who_wait_and_is_not_kept(cache: ResultCache) -> None:
    database = Database(a=b"1")
    database.away = True
    found = await asyncio.gather(*(ask(cache, database) for _ in range(20)), return_exceptions=True)
    assert [type(each) for each in found] == [StoreUnavailable] * 20
    assert database.queries == 1
    database.away = False
    assert (await ask(cache, database)).value == b"1"


async def test_what_is_invalidated_is_loaded_again(cache: ResultCache) -> None:
    database = Database(a=b"1")
    await ask(cache, database)
    database.results["a"] = b"2"
    await cache.invalidate("payments", ["a", "nobody"])
    assert (await ask(cache, database)).value == b"2"


@pytest.mark.parametrize("key", ["x" * 10_000, "snow ☃", "new\nline", "\udc80", "", "a b", "*", "{x}", "a:b"])
async def test_any_event_id_is_a_key(cache: ResultCache, key: str) -> None:
    await cache.put_many("payments", {key: b"1", key + "?": b"2"})
    assert await ask(cache, Database(), key) == Cached(b"1", "hit", 0.0)


async def test_memory_is_bounded(cache: ResultCache) -> None:
    # given more results than memory is for, and one that is too large
    await cache.put_many("payments", {str(number): b"1" for number in range(MEMORY_ENTRIES + 100)})
    await cache.put_many("payments", {"large": b"1" * MEMORY_VALUE})
    # then the oldest have gone, the newest are there, and the large one was never taken
    database = Database()
    found = [(await ask(cache, database, str(number))).state for number in range(100)]
    assert found == ["miss"] * 100
    assert (await ask(cache, database, str(MEMORY_ENTRIES + 99))).state == "hit"
    assert (await ask(cache, database, "large")).state == "miss"


async def test_after_commit_takes_no_more_than_it_can_hold(cache: ResultCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cache.after_commit.WAITING", 3)
    after = AfterCommit(cache, "payments")
    after.add({str(number): b"1" for number in range(5)})
    assert after.dropped == 2
    running = asyncio.create_task(after.run())
    after.end()
    await running
    nowhere = Database()
    assert [(await ask(cache, nowhere, str(number))).state for number in range(5)] == ["hit"] * 3 + ["miss"] * 2
    # and there is room again
    after.add({"9": b"1"})
    assert after.dropped == 2


@pytest.mark.parametrize("url", ["memcached://x", "redis://", "http://host", "disk://", "nonsense", "mem://"])
def test_a_url_that_is_no_cache_is_refused_with_what_would_be_right(url: str) -> None:
    settings = load_settings({"PIPELINE_CACHE_URL_PAYMENTS": url})
    with pytest.raises(ConfigurationError, match="redis://user:password@host"):
        ResultCache.open(settings)


def test_a_password_is_not_told() -> None:
    settings = load_settings({"PIPELINE_CACHE_URL": "rediss-x://me:secret@host"})
    with pytest.raises(ConfigurationError) as refused:
        ResultCache.open(settings)
    assert "secret" not in str(refused.value)
