"""Runs handlers: many at once, each within its time. In: `Work`. Out: `Handled` or `Failed`, as each ends.

No task is made per event. A runner takes events one after another; a further runner is started only while all others
wait inside a handler. So handlers that never wait cost a function call, and those that do overlap up to `concurrency`.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pipeline.errors import StoreUnavailable
from pipeline.log import get_logger
from pipeline.retry import HandlerTimeout, failure_of
from pipeline.worker.context import Context
from pipeline.worker.effects import EffectsBuilder
from pipeline.worker.threads import Threads
from pipeline.worker.work import Failed, Handled, Work

log = get_logger("handle")

THREADS = 32  # for sync handlers, per subscription, at most
BATCH = 500  # events given to a batch handler at once, at most
TURN = 64  # events a runner handles before the event loop gets a turn
PAUSE = 1.0  # seconds before an event goes back to its handler because the database was away
CANCELS = 4  # times a handler over its time is cancelled before its runner is given up
CLOSE_PATIENCE = 1.0  # seconds cancelled handlers have to end when the worker closes


class _Slot:
    """What one runner is doing, for the watchdog."""

    __slots__ = ("cancels", "given_up", "started", "task", "works")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.works: Sequence[Work] = ()
        self.started = 0.0  # of the clock; 0 while no handler runs
        self.cancels = 0  # by the watchdog, of the running call
        self.given_up = False  # the runner counts no more, and what its handler returns is dropped

    def begin(self) -> None:
        """The handler runs from now on. Called in a thread when it is not async."""
        self.started = time.monotonic()


class _GivenUp(BaseException):
    """Ends a runner whose handler ended long after everyone stopped waiting for it."""


class Handling:
    """The handle stage of one subscription. `done` is called with each `Handled` or `Failed`."""

    def __init__(
        self,
        subscription: str,
        concurrency: int,
        timeout: float,
        effects: EffectsBuilder,
        query: Callable[[Any], Awaitable[list[Any]]],
        done: Callable[[Handled | Failed], None],
    ) -> None:
        self._subscription = subscription
        self._concurrency = concurrency
        self._timeout = timeout
        self._effects = effects
        self._query = query
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._pending: deque[Work] = deque()
        self._slots: set[_Slot] = set()
        self._resting = 0  # runners that only gave the event loop a turn
        self._later: set[asyncio.TimerHandle] = set()
        self._threads: Threads | None = None
        self._watchdog: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Nothing is pending or running."""
        return not self._pending and not self._slots and not self._later

    def add(self, works: Sequence[Work]) -> None:
        """Handle these too."""
        self._pending.extend(works)
        self._more_runners()

    def _more_runners(self) -> None:
        """Start a runner if there is work and everyone else waits; look again once it had its first turn."""
        if self._pending and len(self._slots) < self._concurrency and not self._resting:
            slot = _Slot()
            self._slots.add(slot)
            slot.task = self._loop.create_task(self._run(slot))
            self._loop.call_soon(self._more_runners)
            if self._watchdog is None:
                self._watchdog = self._loop.create_task(self._watch())

    async def _run(self, slot: _Slot) -> None:
        count = 0
        try:
            while self._pending:
                work = self._pending.popleft()
                if work.handler.is_batch:
                    await self._handle_batch(slot, self._same(work))
                else:
                    await self._handle_one(slot, work)
                count += 1
                if count % TURN == 0:
                    self._resting += 1
                    await asyncio.sleep(0)
                    self._resting -= 1
                    self._loop.call_soon(self._more_runners)
        except _GivenUp:
            pass
        finally:
            self._slots.discard(slot)

    async def _handle_one(self, slot: _Slot, work: Work) -> None:
        event = work.event
        context = (
            Context(self._subscription, event.id, work.attempt, self._query) if work.handler.takes_context else None
        )
        arguments = (event,) if context is None else (event, context)
        try:
            value = await self._call(slot, [work], arguments)
            done: Handled | Failed = Handled(work, self._effects.build(event, value, context, work.key))
        except StoreUnavailable:
            self._try_later([work])
            return
        except (asyncio.CancelledError, GeneratorExit, _GivenUp):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises is an outcome, sys.exit() too
            done = _failed(work, error)
        self._done(done)

    async def _handle_batch(self, slot: _Slot, works: list[Work]) -> None:
        context = Context(self._subscription, "", works[0].attempt, self._query)
        events = [work.event for work in works]
        handler = works[0].handler
        try:
            values = await self._call(slot, works, (events, context) if handler.takes_context else (events,))
            if values is None:
                values = [None] * len(works)
            if not isinstance(values, (list, tuple)) or len(values) != len(works):
                raise TypeError(
                    f"batch handler {handler.name} got {len(works)} events and must return a list with one value for "
                    f"each, or None; it returned {type(values).__name__}"
                )
            if context.follow_ups:
                raise TypeError(
                    f"batch handler {handler.name}: return Publish(...) in the list, beside its event's rows"
                )
        except StoreUnavailable:
            self._try_later(works)
            return
        except (asyncio.CancelledError, GeneratorExit, _GivenUp):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises is an outcome, sys.exit() too
            if len(works) == 1:
                self._done(_failed(works[0], error))
                return
            # Somebody in there is at fault: ask again one by one, so that only that event pays for it.
            for work in works:
                await self._handle_batch(slot, [work])
            return
        for work, value in zip(works, values, strict=True):
            try:
                done: Handled | Failed = Handled(work, self._effects.build(work.event, value, None, work.key))
            except Exception as error:  # noqa: BLE001 - this event's value is at fault, the others are not
                done = _failed(work, error)
            self._done(done)

    async def _call(self, slot: _Slot, works: Sequence[Work], arguments: tuple[Any, ...]) -> Any:
        """The handler's value. Raises: what it raises; HandlerTimeout when the watchdog cut it off."""
        handler = works[0].handler
        slot.works = works
        try:
            if handler.is_async:
                slot.begin()
                value = await handler.function(*arguments)
            else:
                if self._threads is None:
                    self._threads = Threads(min(self._concurrency, THREADS), f"handler-{self._subscription}")
                value = await self._threads.call(handler.function, arguments, slot.begin)
                if inspect.isawaitable(value):  # a decorator has hidden that the handler is async
                    value = await value
        except asyncio.CancelledError:
            assert slot.task is not None
            if not slot.cancels:
                if slot.task.cancelling():
                    raise  # this worker is being closed
                raise RuntimeError("something the handler awaited was cancelled") from None
            value = None
        finally:
            slot.started = 0.0
            if slot.given_up:
                raise _GivenUp
        if slot.cancels:
            assert slot.task is not None
            for _ in range(slot.cancels):
                slot.task.uncancel()
            slot.cancels = 0
            raise self._timed_out()
        return value

    def _timed_out(self) -> HandlerTimeout:
        return HandlerTimeout(f"the handler took longer than {self._timeout:g} s (`timeout:` of {self._subscription})")

    async def _watch(self) -> None:
        """Cut off handlers over their time. Looks four times per timeout: one is cut off at most a quarter late."""
        try:
            while self._slots:
                await asyncio.sleep(min(self._timeout / 4, 1.0))
                late = time.monotonic() - self._timeout
                for slot in [slot for slot in self._slots if 0 < slot.started < late]:
                    if slot.cancels == CANCELS:
                        self._give_up(slot)
                    elif slot.task is not None:
                        slot.cancels += 1
                        slot.task.cancel()
        finally:
            self._watchdog = None

    def _give_up(self, slot: _Slot) -> None:
        """The handler ignores being cancelled: its events fail without it, and another runner takes its place."""
        slot.given_up = True
        self._slots.discard(slot)
        for work in slot.works:
            log.error("a handler can't be stopped", handler=work.handler.name, event_id=work.event.id)
            self._done(_failed(work, self._timed_out()))
        self._more_runners()

    def _same(self, first: Work) -> list[Work]:
        """`first` and the pending works right behind it that go to the same batch handler."""
        works = [first]
        while self._pending and len(works) < BATCH and self._pending[0].handler is first.handler:
            works.append(self._pending.popleft())
        return works

    def _try_later(self, works: list[Work]) -> None:
        """The database is away: not the event's failure, no attempt is used up."""

        def again() -> None:
            self._later.discard(timer)
            self.add(works)

        timer = self._loop.call_later(PAUSE, again)
        self._later.add(timer)

    async def close(self) -> None:
        """Stop at once; what is unfinished goes back to the queue when the channel closes."""
        self._pending.clear()
        for timer in self._later:
            timer.cancel()
        self._later.clear()
        tasks = [slot.task for slot in self._slots if slot.task is not None]
        if self._watchdog is not None:
            tasks.append(self._watchdog)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_PATIENCE)
        if self._threads is not None:
            self._threads.close()


def _failed(work: Work, error: BaseException) -> Failed:
    return Failed(work.delivery, failure_of(error), work.attempt, work.event.id, work.event.type)
