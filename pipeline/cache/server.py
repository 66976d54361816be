"""One cache, behind cashews: this process's memory, Redis or Valkey. In: keys, bytes. Out: bytes, or `CacheDown`.

Every call has a short deadline, and a breaker keeps a dead cache from costing that deadline each time. Reads and writes
have one each: a cache that is full, or a replica that takes no writes, still answers what it holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from pipeline.cache.breaker import Breaker
from pipeline.errors import ConfigurationError
from pipeline.log import get_logger

log = get_logger("cache")

T = TypeVar("T")

MEMORY = "mem://"
SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss"}
LOOKS_LIKE = "redis://user:password@host:6379/0"

TIMEOUT = 0.5  # s for one call; a cache that takes longer than a query is none
FAILURES = 3  # in a row, before it counts as down
PAUSE = 2.0  # s between probes of a cache that is down
CONNECTIONS = 32  # to one server, opened as they are needed
MEMORY_ENTRIES = 4096
MEMORY_VALUE = 64 * 1024  # bytes of one value; with the number of entries this bounds what the process spends
SERVER_VALUE = 1024 * 1024  # bytes; larger ones are read from the database, which is no slower then


class CacheDown(Exception):
    """The cache did not do it, and says why. Stays within this room: nobody's request fails of it."""


class CacheServer:
    """The cache at one URL. `calls` counts what was asked of it, for those who watch a breaker."""

    def __init__(self, url: str) -> None:
        self.name = _name(url)
        self.largest = SERVER_VALUE if url else MEMORY_VALUE
        self.calls = 0
        self._cache = _open(url)
        self._reading = Breaker(FAILURES, PAUSE)
        self._writing = Breaker(FAILURES, PAUSE)
        self._under_way: set[asyncio.Task[Any]] = set()

    async def get(self, key: str) -> object:
        """What is kept under the key, None for nothing. Raises: CacheDown."""
        return await self._call(self._reading, lambda: self._cache.get(key))

    async def put(self, key: str, value: bytes, keep_for: float, only_new: bool = False) -> None:
        """Keep the value; with `only_new` only where there is none. Raises: CacheDown."""
        if len(value) <= self.largest:
            exist = False if only_new else None
            await self._call(self._writing, lambda: self._cache.set(key, value, expire=keep_for, exist=exist))

    async def put_many(self, values: Mapping[str, bytes], keep_for: float) -> None:
        """Keep the values, in one go. Raises: CacheDown."""
        fitting = {key: value for key, value in values.items() if len(value) <= self.largest}
        if fitting:
            await self._call(self._writing, lambda: self._cache.set_many(fitting, expire=keep_for))

    async def forget(self, keys: Sequence[str]) -> None:
        """Keep nothing under these keys. Raises: CacheDown."""
        if keys:
            await self._call(self._writing, lambda: self._cache.delete_many(*keys))

    async def check(self) -> str | None:
        """What is wrong with it now, None when all is well. Asks the server unless it was found dead a moment ago."""
        try:
            await self._call(self._reading, self._cache.ping)
        except CacheDown as error:
            return str(error)
        return self._writing.error

    async def close(self) -> None:
        """End its connections. Never fails."""
        try:
            if self._under_way:
                await asyncio.wait(self._under_way, timeout=4 * TIMEOUT)
            await self._in_time(self._cache.close())
        except Exception as error:  # noqa: BLE001 - whatever a dead server makes of it
            log.debug("the cache was not closed in order", cache=self.name, error=_reason(error))

    async def _call(self, breaker: Breaker, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if not breaker.allows():
            raise CacheDown(breaker.error)
        self.calls += 1
        was_open = breaker.is_open
        try:
            answer = await self._in_time(work())
        except Exception as error:  # of the client library, of its connection, of the server's refusal
            reason = f"{self.name}: {_reason(error)}"
            if breaker.failed(reason):
                log.warning("the cache is down, going without it", cache=self.name, error=reason, probe_every=PAUSE)
            raise CacheDown(reason) from error
        breaker.succeeded()
        if was_open:
            log.info("the cache is back", cache=self.name)
        return answer

    async def _in_time(self, call: Coroutine[Any, Any, T]) -> T:
        """What the call gives. Raises: TimeoutError when it takes too long; what it raises.

        It is not cancelled, neither then nor with its caller: the client library would leave a connection that is half
        open. It ends by timeouts of its own.
        """
        task = asyncio.create_task(call)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        done, _ = await asyncio.wait({task}, timeout=TIMEOUT)
        if not done:
            raise TimeoutError
        return task.result()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # seen, though nobody may wait for it any more


def check_url(url: str) -> None:
    """Raises: ConfigurationError when `url` can't be a cache's address, or its client is not installed."""
    parts = urlsplit(url)
    if url and (parts.scheme not in SCHEMES or not parts.hostname):
        raise ConfigurationError(
            f"PIPELINE_CACHE_URL is of a kind this version can't use ({parts.scheme or 'no'}://…);"
            f" it must look like {LOOKS_LIKE}, or be empty for the process's own memory"
        )
    try:
        import cashews  # noqa: F401 - an extra, which not everybody installs

        if url:
            import redis  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the client for caches is not installed ({error.name}): pip install 'event-pipeline[redis]'"
        ) from error


def _open(url: str) -> Any:
    check_url(url)
    from cashews import Cache

    cache = Cache()
    # No pickles: whoever can write into the cache could run code here.
    if not url:
        cache.setup(MEMORY, size=MEMORY_ENTRIES, check_interval=60, pickle_type="null", check_repr=False)
        return cache
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    parts = urlsplit(url)
    cache.setup(
        urlunsplit(parts._replace(scheme=SCHEMES[parts.scheme])),
        suppress=False,  # a failure must be seen to be counted
        client_name="pipeline",
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        wait_for_connection_timeout=TIMEOUT,
        max_connections=CONNECTIONS,
        retry=Retry(NoBackoff(), 0),  # the next call is the retry
        pickle_type="null",
        check_repr=False,
    )
    return cache


def _name(url: str) -> str:
    """Without user and password."""
    if not url:
        return "memory"
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _reason(error: BaseException) -> str:
    cause = error.__cause__ if not str(error) and error.__cause__ is not None else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    return str(cause) or type(cause).__name__
