"""Results in a store behind a cache, for tests. In: a database, a Redis. Out: a `Shop` that counts their calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import event

from pipeline.cache import Cached, ResultCache
from pipeline.settings import load_settings
from pipeline.store import Effects, Store
from pipeline.store.opening import open_database

READERS = 10
BATCH = 120  # reads


def processed(*event_ids: str) -> list[Effects]:
    """Events whose handler returned their own id."""
    return [Effects(event_id, "order.created", (), f'"{event_id}"'.encode()) for event_id in event_ids]


@dataclass(slots=True)
class Shop:
    """A store with results in it, counting what its database is asked, and a cache before it."""

    store: Store
    cache: ResultCache
    queries: list[str]

    async def close(self) -> None:
        """Close both."""
        await self.cache.close()
        await self.store.close()

    async def ask(self, event_id: str) -> Cached:
        """As a gateway does."""
        return await self.cache.get("payments", event_id, lambda: self.store.result(event_id))

    async def ask_many(self, event_ids: Sequence[str], reads: int = BATCH) -> list[Cached]:
        """So many reads, by readers side by side. Each must bring its result."""

        async def reader(number: int) -> list[Cached]:
            mine = [event_ids[at % len(event_ids)] for at in range(number, reads, READERS)]
            found = [await self.ask(event_id) for event_id in mine]
            assert [each.value for each in found] == [f'"{event_id}"'.encode() for event_id in mine]
            return found

        return [each for found in await asyncio.gather(*map(reader, range(READERS))) for each in found]


async def shop_at(url: str, cache_url: str, *event_ids: str, fresh_for: float = 60.0) -> Shop:
    """A shop where these events are processed; the tables are made."""
    database = open_database(url, "payments", [])
    queries: list[str] = []

    def asked(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "pipeline_result" in statement:
            queries.append(statement)

    event.listen(database.reader.sync_engine, "before_cursor_execute", asked)
    store = Store(database, "payments")
    await database.write(lambda connection: None)  # makes the tables
    if event_ids:
        await store.commit(processed(*event_ids))
    settings = load_settings({"PIPELINE_CACHE_URL": cache_url})
    return Shop(store, ResultCache.open(settings, fresh_for=fresh_for), queries)


Open: TypeAlias = Callable[..., Awaitable[Shop]]
