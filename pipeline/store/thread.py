"""One thread with one connection, for whole transactions. In: functions of a connection. Out: what they return.

A driver that is asynchronous by handing each call to a thread costs several crossings a statement, and in a busy
process each waits for the interpreter's lock, 5 ms at a time and more. Here a transaction crosses over once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from sqlalchemy import Connection

from pipeline.store.uninterrupted import uninterrupted

T = TypeVar("T")


class ConnectionThread:
    """Runs functions one after the other on a connection that `connect` opens when there is none.

    `current` says whether the connection still leads to the right place; it is asked before each function.
    """

    def __init__(self, connect: Callable[[], Connection], current: Callable[[], bool], name: str) -> None:
        self._connect = connect
        self._current = current
        self._connection: Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns or raises. Once begun it runs to its end, even when the caller is cancelled.

        After an exception the connection is dropped, so that the next `work` finds a clean one.
        """
        return await self._finish(lambda: self._call(work))

    async def close(self) -> None:
        """Close the connection after what is still waiting, and end the thread."""
        await self._finish(self._drop)
        self._thread.shutdown()

    async def _finish(self, function: Callable[[], T]) -> T:
        return await uninterrupted(asyncio.get_running_loop().run_in_executor(self._thread, function))

    def _call(self, work: Callable[[Connection], T]) -> T:
        if self._connection is not None and not self._current():
            self._drop()
        if self._connection is None:
            self._connection = self._connect()
        try:
            return work(self._connection)
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # it may be broken, which is why it is dropped
                connection.close()
