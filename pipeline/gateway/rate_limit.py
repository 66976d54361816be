"""So many requests a second for each caller. In: a caller. Out: nothing, or 429 with Retry-After.

Counted in this process, or in Redis for all gateways together. While Redis is away each gateway counts for itself: a
limit that is somewhat too generous for a while is better than no gateway.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import ConfigurationError as LimitsConfigurationError
from limits.errors import StorageError

from pipeline.errors import ConfigurationError
from pipeline.gateway.problems import refused
from pipeline.gateway.scopes import Caller
from pipeline.log import get_logger

log = get_logger("gateway")

PATIENCE = 0.25  # seconds that Redis may take
_SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss"}  # one protocol
PAUSE = 5.0  # seconds without it after it failed: a dead Redis must not cost each request its patience


class RateLimit:
    """At most `rate` ("1000/second", "5000 per minute") for each caller; `url` is that of a Redis, "" for none.

    Raises: ConfigurationError when either can't be read.
    """

    def __init__(self, rate: str, url: str = "") -> None:
        try:
            self._item: RateLimitItem = parse(rate)
        except ValueError:
            raise ConfigurationError(f"--rate-limit {rate!r} can't be read; it looks like 1000/second") from None
        self._own = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._redis = _redis(url) if url else None
        self._shared = None if self._redis is None else SlidingWindowCounterRateLimiter(self._redis)
        self._paused_until = 0.0

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._redis is not None:
            bridge: Any = self._redis.bridge  # the library has no way of its own to close it
            await bridge.get_connection().aclose()

    async def check(self, caller: Caller) -> None:
        """Count one request. Raises: Refused (429)."""
        if self._shared is not None and time.monotonic() >= self._paused_until:
            try:
                async with asyncio.timeout(PATIENCE):
                    return await self._hit(self._shared, caller.id)
            except (TimeoutError, StorageError) as error:
                now = time.monotonic()
                if now >= self._paused_until:  # of many that wait for it, the first says so
                    log.warning("rate limits are counted here: Redis is away", error=_name(error), again_in=PAUSE)
                self._paused_until = now + PAUSE
        return await self._hit(self._own, caller.id)

    async def _hit(self, limiter: SlidingWindowCounterRateLimiter, name: str) -> None:
        if await limiter.hit(self._item, name):
            return
        reset = (await limiter.get_window_stats(self._item, name)).reset_time
        seconds = max(1, math.ceil(reset - time.time()))
        raise refused(429, "rate", f"more than {self._item} for these credentials", retry_after=str(seconds))


def _name(error: Exception) -> str:
    """What kind of error it is; its words may hold an address."""
    return type(error.__cause__ or error).__name__


def _redis(url: str) -> RedisStorage:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ConfigurationError("PIPELINE_RATE_LIMIT_URL can't be read; it looks like redis://:password@host:6379/0")
    try:
        return RedisStorage(
            f"async+{_SCHEMES[scheme]}://{rest}",
            wrap_exceptions=True,
            implementation="redispy",
            socket_connect_timeout=PATIENCE,
            socket_timeout=PATIENCE,
        )
    except (ValueError, LimitsConfigurationError) as error:
        why = "`pip install redis`" if isinstance(error, LimitsConfigurationError) else type(error).__name__
        raise ConfigurationError(f"PIPELINE_RATE_LIMIT_URL can't be used: {why}") from None
