"""SQL to a PostgreSQL, past the library. In: statements. Out: rows, without waiting in the test's own event loop.

So that a test can look, lock and disturb while its loop stands still, and needs no `await` for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import asyncpg

T = TypeVar("T")
TIMEOUT = 30.0  # s for one answer


class Session:
    """One connection of a test's own."""

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._connection: Any = self._wait(asyncpg.connect(url, timeout=TIMEOUT))

    def run(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of one statement."""
        return [tuple(row) for row in self._wait(self._connection.fetch(sql, *parameters))]

    def script(self, sql: str) -> None:
        """Several statements at once, without parameters."""
        self._wait(self._connection.execute(sql))

    @property
    def closed(self) -> bool:
        """Whether it has ended, by itself or by the server's doing."""
        return bool(self._connection.is_closed())

    def close(self) -> None:
        """End the connection, and with it its transaction and its locks."""
        self._wait(self._connection.close())

    def _wait(self, answer: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(answer, self._loop).result(TIMEOUT)


class Sessions:
    """Makes sessions; one thread serves them all."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="SQL of tests")
        self._thread.start()

    def open(self, url: str) -> Session:
        """A new connection."""
        return Session(url, self._loop)

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
