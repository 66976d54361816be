"""Threads for handlers that are not async. In: a function and its arguments. Out: what it returns or raises, awaited.

Not a `ThreadPoolExecutor`: Python joins that one's threads at its end, so a handler that never returns would keep alive
a process that was told to stop. Here a thread whose caller gave up counts as lost and another takes its place; and a
call that still waits for a thread has not begun.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any


class _Job:
    __slots__ = ("arguments", "begin", "function", "future", "given_up", "running")

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        begin: Callable[[], None],
        future: asyncio.Future[tuple[Any, BaseException | None]],
    ) -> None:
        self.function = function
        self.arguments = arguments
        self.begin = begin
        self.future = future
        self.running = False
        self.given_up = False


class Threads:
    """At most `limit` threads that are not lost, made when there is work for them. All methods are the event loop's."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()  # between a job's begin and its caller giving up
        self._waiting = 0  # jobs whose caller waits
        self._threads = 0  # threads that are not lost

    async def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], begin: Callable[[], None]) -> Any:
        """`function(*arguments)` in a thread; `begin` is called there right before. Raises: what the function raises.

        When the caller is cancelled, a function that has begun runs on; what comes of it is dropped.
        """
        job = _Job(function, arguments, begin, self._loop.create_future())
        self._waiting += 1
        self._jobs.put(job)
        self._enough()
        try:
            value, error = await job.future
        finally:
            self._waiting -= 1
            if job.future.cancelled():
                self._give_up(job)
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """No further calls; threads end as they become free."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _enough(self) -> None:
        if self._threads < min(self._limit, self._waiting):
            self._threads += 1
            threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _give_up(self, job: _Job) -> None:
        with self._lock:
            job.given_up = True
        if job.running:
            self._threads -= 1
            self._enough()

    def _ended(self, job: _Job, value: Any, error: BaseException | None) -> None:
        if not job.given_up:
            if not job.future.done():
                job.future.set_result((value, error))  # not set_exception: a future refuses StopIteration
            return
        if self._threads < self._limit:
            self._threads += 1  # it is back
        else:
            self._jobs.put(None)  # its place is taken

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            with self._lock:
                if job.given_up:
                    continue
                job.running = True
            value: Any = None
            error: BaseException | None = None
            try:
                job.begin()
                value = job.function(*job.arguments)
            except BaseException as raised:  # noqa: BLE001 - it is the caller's to judge
                error = raised
            with suppress(RuntimeError):  # the event loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._ended, job, value, error)
            del job, value, error
