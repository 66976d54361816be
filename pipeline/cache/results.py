"""Cache-aside for results. In: an event id, and how to load its result from the database. Out: `Cached`.

    get ─► fresh in the cache ────────────────────────────► hit
       └─► not there, or older than fresh ─► load ─► put ─► miss
                                               └─ database down, an old value is there ─► stale
       └─► the cache is down ─► load ──────────────────────► bypass

A value is kept much longer than it is fresh: for the time when the database is away.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias
from urllib.parse import quote

from pipeline.cache.breaker import Breaker
from pipeline.cache.entry import Entry, decode_entry
from pipeline.cache.server import CacheDown, CacheServer, check_url
from pipeline.errors import StoreUnavailable
from pipeline.log import get_logger
from pipeline.settings import Settings

log = get_logger("cache")

Load: TypeAlias = Callable[[], Awaitable[bytes | None]]
State: TypeAlias = Literal["hit", "miss", "stale", "bypass"]

FRESH = 60.0  # s a value is served without asking the database
KEEP = 24 * 3600.0  # s a value is kept for the time when the database is away
AWAY = 1.0  # s between two tries of a database that is away, while there is an old value to serve
PATIENCE = 2.0  # s to wait for the database when there is an old value to serve
LONGEST_KEY = 200  # characters
PUT_AT_ONCE = 500  # values in one call


@dataclass(frozen=True, slots=True)
class Cached:
    """A value (None: the database has none), where it came from, and its age in seconds (0 when just loaded)."""

    value: bytes | None
    state: State
    age: float


class ResultCache:
    """Results of all subscriptions, each in the cache that the settings name for it. Made by `open`.

    A dead cache is no error of any method here: reads go to the database, writes are dropped.
    """

    def __init__(self, settings: Settings, fresh_for: float, keep_for: float, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._fresh_for = fresh_for
        self._keep_for = max(keep_for, fresh_for)
        self._clock = clock
        self._servers: dict[str, CacheServer] = {}
        self._databases: dict[str, Breaker] = {}
        self._flights: dict[tuple[str, str], asyncio.Task[Cached]] = {}

    @classmethod
    def open(
        cls,
        settings: Settings,
        fresh_for: float = FRESH,
        keep_for: float = KEEP,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Connects when first used. Durations are seconds.

        Raises: ConfigurationError for a URL that can't be used, or when the client library is not installed.
        """
        for url in {settings.cache_url, *settings.own_cache_urls.values()}:
            check_url(url)
        return cls(settings, fresh_for, keep_for, clock)

    async def get(self, subscription: str, key: str, load: Load) -> Cached:
        """The value under `key` (an event id). Calls under way for the same one share what comes of the first.

        Raises: what `load` raises; StoreUnavailable only when the cache has no value to serve instead.
        """
        place = (subscription, key)
        if (flight := self._flights.get(place)) is None:
            # A task of its own: whoever asked first may go away while others wait.
            flight = self._flights[place] = asyncio.create_task(self._fetch(subscription, key, load))
            flight.add_done_callback(lambda ended: self._landed(place, ended))
        return await asyncio.shield(flight)

    async def put_many(self, subscription: str, values: Mapping[str, bytes]) -> None:
        """Keep these results (JSON) by event id, instead of any that are there."""
        now, server = self._clock(), self._server(subscription)
        items = [(_name(subscription, key), Entry(value, now).encode()) for key, value in values.items()]
        try:
            for start in range(0, len(items), PUT_AT_ONCE):
                await server.put_many(dict(items[start : start + PUT_AT_ONCE]), self._keep_for)
        except CacheDown as error:
            log.debug("results were not cached", subscription=subscription, n=len(items), error=str(error))

    async def invalidate(self, subscription: str, ids: Sequence[str]) -> None:
        """Forget these. With the cache down they stay in it, and may be served until they are no longer fresh."""
        try:
            await self._server(subscription).forget([_name(subscription, key) for key in ids])
        except CacheDown as error:
            log.warning("results were not taken out of the cache", subscription=subscription, error=str(error))

    async def check(self) -> dict[str, str | None]:
        """What is wrong with each cache server of the settings, by its address; None when it is well."""
        urls = {self._settings.cache_url, *self._settings.own_cache_urls.values()} - {""}
        servers = [self._at(url) for url in sorted(urls)]
        found = await asyncio.gather(*(server.check() for server in servers))
        return {server.name: error for server, error in zip(servers, found, strict=True)}

    def calls(self) -> int:
        """How often cache servers were asked, by this process."""
        return sum(server.calls for server in self._servers.values())

    async def close(self) -> None:
        """Wait for what is under way; end connections."""
        await asyncio.gather(*self._flights.values(), return_exceptions=True)
        for server in self._servers.values():
            await server.close()

    async def _fetch(self, subscription: str, key: str, load: Load) -> Cached:
        server, name = self._server(subscription), _name(subscription, key)
        asked = self._clock()
        try:
            entry = decode_entry(await server.get(name))
            reached = True
        except CacheDown:
            entry, reached = None, False
        if entry is None:
            value = await load()
        elif (age := entry.age(asked)) < self._fresh_for:
            return Cached(entry.value, "hit", age)
        else:
            try:
                value = await self._reload(subscription, load)
            except StoreUnavailable:
                return Cached(entry.value, "stale", age)
        if reached:
            await self._keep(server, name, value, asked, entry)
        return Cached(value, "miss" if reached else "bypass", 0.0)

    async def _reload(self, subscription: str, load: Load) -> bytes | None:
        """Load where there is an old value: then nobody waits long, or again and again, for a database that is away."""
        database = self._databases.setdefault(subscription, Breaker(1, AWAY))
        if not database.allows():
            raise StoreUnavailable(database.error or "")
        try:
            async with asyncio.timeout(PATIENCE):
                value = await load()
        except (StoreUnavailable, TimeoutError) as error:
            reason = str(error) or f"no answer within {PATIENCE:g} s"
            if database.failed(reason):
                log.warning("the database is away, serving old results", subscription=subscription, error=reason)
            raise StoreUnavailable(reason) from error
        database.succeeded()
        return value

    async def _keep(self, server: CacheServer, name: str, value: bytes | None, at: float, entry: Entry | None) -> None:
        try:
            if value is not None:
                # A worker may have put a newer one while the database was asked.
                await server.put(name, Entry(value, at).encode(), self._keep_for, only_new=entry is None)
            elif entry is not None:
                await server.forget([name])
        except CacheDown as error:
            log.debug("a result was not cached", error=str(error))

    def _landed(self, place: tuple[str, str], flight: asyncio.Task[Cached]) -> None:
        del self._flights[place]
        if not flight.cancelled():
            flight.exception()  # seen, though everybody who asked may have gone

    def _server(self, subscription: str) -> CacheServer:
        return self._at(self._settings.cache_of(subscription))

    def _at(self, url: str) -> CacheServer:
        if (server := self._servers.get(url)) is None:
            server = self._servers[url] = CacheServer(url)
        return server


def _name(subscription: str, key: str) -> str:
    """`pipeline:payments:order-1`: a namespace for each subscription."""
    if len(key) > LONGEST_KEY or not key.isascii() or not key.isprintable():
        key = f"sha256:{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"
    return f"pipeline:{quote(subscription, safe='')}:{key}"
