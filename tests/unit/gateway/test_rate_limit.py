"""Rate limits in memory and in a real Redis that dies and freezes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from pipeline.errors import ConfigurationError
from pipeline.gateway import rate_limit
from pipeline.gateway.problems import Refused
from pipeline.gateway.rate_limit import RateLimit
from pipeline.gateway.scopes import Caller
from tests.support.redis import RedisServer

ANN, BOB = Caller("key:ann", ()), Caller("key:bob", ())


@asynccontextmanager
async def limited(rate: str, url: str = "") -> AsyncIterator[RateLimit]:
    limit = RateLimit(rate, url)
    try:
        yield limit
    finally:
        await limit.close()


async def taken(limit: RateLimit, caller: Caller, times: int) -> int:
    """How many of so many requests are let through."""
    found = 0
    for _ in range(times):
        with suppress(Refused):
            await limit.check(caller)
            found += 1
    return found


async def test_each_caller_has_a_rate_of_its_own() -> None:
    async with limited("5/hour") as limit:
        assert await taken(limit, ANN, 8) == 5
        assert await taken(limit, BOB, 8) == 5
        with pytest.raises(Refused) as caught:
            await limit.check(BOB)
        assert caught.value.problem.status == 429
        assert 1 <= int(caught.value.problem.headers["retry-after"]) <= 3600


async def test_gateways_count_together_and_alone_while_redis_is_away(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit, "PATIENCE", 2.0)  # for a busy machine
    url = redis_server.url
    async with limited("6/hour", url) as one, limited("6/hour", url) as two:
        assert await taken(one, ANN, 4) == 4
        assert await taken(two, ANN, 4) == 2
        # when Redis is gone, each counts for itself
        redis_server.kill()
        assert await taken(one, ANN, 8) == 6
        assert await taken(two, ANN, 8) == 6
        # and together when it is back
        redis_server.start()
        monkeypatch.setattr(one, "_paused_until", 0.0)
        assert await taken(one, BOB, 8) == 6


async def test_a_frozen_redis_costs_one_patience_and_not_one_a_request(redis_server: RedisServer) -> None:
    async with limited("1000/hour", redis_server.url) as limit:
        redis_server.freeze()
        try:
            assert await taken(limit, ANN, 1) == 1
            began = time.monotonic()
            assert await taken(limit, ANN, 200) == 200
            assert time.monotonic() - began < 200 * rate_limit.PATIENCE / 2
        finally:
            redis_server.thaw()


async def test_many_at_once_while_it_dies_are_all_answered(redis_server: RedisServer) -> None:
    async with limited("100000/hour", redis_server.url) as limit:
        asking = [asyncio.create_task(taken(limit, ANN, 5)) for _ in range(50)]
        await asyncio.sleep(0)
        redis_server.kill()
        assert await asyncio.gather(*asking) == [5] * 50


@pytest.mark.parametrize("rate", ["", "many", "5", "5/fortnight", "-1/second"])
def test_a_rate_that_is_none_is_said(rate: str) -> None:
    with pytest.raises(ConfigurationError, match="--rate-limit"):
        RateLimit(rate)


@pytest.mark.parametrize("url", ["localhost", "http://x", "redis://:secret@[::1", "redis://:secret@h:port"])
def test_an_address_that_is_none_is_said_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="PIPELINE_RATE_LIMIT_URL") as caught:
        RateLimit("5/second", url)
    assert "secret" not in str(caught.value)


async def test_a_wrong_password_is_a_redis_that_is_away(redis_server: RedisServer) -> None:
    async with limited("5/hour", f"redis://:wrong@127.0.0.1:{redis_server.port}/0") as limit:
        assert await taken(limit, ANN, 8) == 5
